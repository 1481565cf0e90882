"""Starting weights of a training, from torchvision, a file or a registered model."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision.models.vision_transformer import interpolate_embeddings

from conf.errors import InputError
from training.network.bodies import HEADS, OWN_BODIES
from training.network.checkpoint import UNREADABLE
from training.network.models import XrayClassifier
from training.network.published import (
    NOT_OF_A_CLASSIFIER,
    on_our_greys,
    open_weights,
    unwrapped,
    with_plain_names,
)

SECOND_HEADS = ("aux1", "aux2", "AuxLogits")
"""second heads of googlenet and inception_v3, which serve only the first training of these networks"""
BODY = ("body.", "neck.")
LINEAGE = ("run_id", "delta_table_id", "delta_version", "commit")
PIXELS = ("pixel_mean", "pixel_std")
# timm tells by it that a file is from a pre-training, whose last LayerNorm belongs behind the pooling.
MASK_TOKEN = "mask_token"
POSITIONS = "body.encoder.pos_embedding"


@dataclass(frozen=True)
class StartingWeights:
    """What `load_weights` did; names are those of tensors in the model, and in `left_out` those in the file."""

    source: str
    loaded: list[str]
    adapted: dict[str, str]
    """loaded tensor that was changed to fit -> how"""
    fresh: list[str]
    """parameters that keep their random values"""
    left_out: list[str]
    """tensors of the file's head, which is for other findings or has another shape"""
    ancestors: list[dict] = field(default_factory=list)
    """first the source itself: its `source` and, if it is one of our checkpoints, its run_id, delta_table_id,
    delta_version and commit; then that checkpoint's own ancestors"""

    def describe(self) -> str:
        """One line for the log."""
        if not self.source:
            return "all weights are random"
        adapted = "".join(f", {name} {how}" for name, how in self.adapted.items())
        fresh, left_out = (", ".join(names) or "none" for names in (self.fresh, self.left_out))
        return f"{len(self.loaded)} tensors from {self.source}{adapted}; random: {fresh}; left in the file: {left_out}"


def load_weights(
    model: XrayClassifier,
    source: str,
    name: str,
    *,
    findings: Sequence[str] = (),
    resolve: Callable[[str], Path] | None = None,
) -> StartingWeights:
    """Loads the weights of `source` into the model, in place, and reports what it did.

    name: the model's name, as for build_model. source: one of
    - empty: nothing is loaded;
    - `imagenet` or a name such as `DenseNet121_Weights.IMAGENET1K_V1`: torchvision's weights, downloaded once into
      torch's folder ($TORCH_HOME/hub/checkpoints);
    - a file: the state dict of a network of torchvision or timm, under the names and keys of published.py, or one of
      our checkpoints;
    - `models:/name@alias` or `models:/name/3`: `resolve` is called with it and returns the path of the checkpoint
      that the registered model was made from, or raises InputError.

    Body and neck must fit tensor by tensor. The head is loaded only from one of our checkpoints with the same
    `findings` in the same order, and only if it has the same shape; any other head stands for other classes and stays
    in the file. The model keeps its own pixel_mean and pixel_std, which are those of its training split. A first
    convolution for grey images is spread over three channels, each with a third of its weights, which gives the same
    for three equal channels. Position embeddings of vision transformers are interpolated to the model's image size.
    Raises InputError, and leaves the model unchanged, if the source is absent, damaged, or from another network. No
    code from the file is run.
    """
    if not source:
        return StartingWeights(source, [], {}, [key for key, _ in model.named_parameters()], [])
    content = _read(source, name, resolve)
    if "weights" in content:
        offered, left_out = _from_checkpoint(content, model, source, name, findings)
        changed = _other_maps(content, model)
    else:
        offered, left_out, changed = _from_file(content, model, source, name)
    adapted = changed | _adapt(offered, model)
    _check_fit(offered, model.state_dict(), source, name)
    model.load_state_dict(offered, strict=False)
    fresh = [key for key, _ in model.named_parameters() if key not in offered]
    # A file is recorded by its name only: its folder is private.
    named = source if source.startswith("models:/") else Path(source).name
    origin = {"source": named} | {key: content[key] for key in LINEAGE if key in content}
    return StartingWeights(source, list(offered), adapted, fresh, left_out, [origin, *content.get("ancestors", [])])


def _read(source: str, name: str, resolve: Callable[[str], Path] | None) -> dict:
    """Reads one of our checkpoints, or a published state dict."""
    if source == "imagenet" or re.fullmatch(r"\w+_Weights\.\w+", source):
        content = _published(source, name)
    elif source.startswith("models:/"):
        if resolve is None:
            raise InputError(f"training.weights is {source}, but no registry is available: give a checkpoint's path")
        content = _load_file(resolve(source))
    else:
        content = _load_file(Path(source).expanduser())
    content = unwrapped(content)
    if isinstance(content, dict) and (content.get("members") or content.get("size_px") == 0):
        raise InputError(
            f"{source} is a checkpoint of {content.get('model')}, which is no single network: give that of a member "
            "which looks at films"
        )
    tensors = content.get("weights", content) if isinstance(content, dict) else None
    if not (tensors and isinstance(tensors, dict) and _are_named(tensors)):
        raise InputError(
            f"{source} holds no state dict (dict of tensors): save it again with torch.save(network.state_dict(), FILE)"
        )
    return content


def _are_named(tensors: dict) -> bool:
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items())


def _load_file(path: Path) -> object:
    if not path.is_file():
        raise InputError(
            f"training.weights: no file at {path}; expected imagenet, one of torchvision's weights such as "
            "DenseNet121_Weights.IMAGENET1K_V1, the path of a .pt, .pth or .safetensors file, or models:/name@alias"
        )
    return open_weights(path)


def _published(source: str, name: str) -> object:
    """torchvision's weights, from torch's folder or downloaded into it."""
    if name.startswith("timm:"):
        raise InputError(
            f"training.weights is {source}, weights of torchvision: download the file of {name} "
            "(model.safetensors on its page at huggingface.co/timm), and give --training.weights FILE"
        )
    if name in OWN_BODIES:
        raise InputError(f"training.weights is {source}, but nobody has published weights of {name}: leave it empty")
    known = torchvision.models.get_model_weights(name)
    weights = known.DEFAULT if source == "imagenet" else next((one for one in known if str(one) == source), None)
    if weights is None:
        raise InputError(f"training.weights is {source}, but for {name} torchvision has {', '.join(map(str, known))}")
    stored = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if stored.exists():
        return _load_file(stored)
    try:
        return weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InputError(
            f"{weights} cannot be downloaded ({error!s:.160}): fetch {weights.url} on a machine with a network and put "
            f"it at {stored} (the variable TORCH_HOME moves that folder), or give the file: --training.weights FILE"
        ) from error


def _from_checkpoint(
    content: dict, model: XrayClassifier, source: str, name: str, findings: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors for the model, under its names, and the names of the head's tensors that stay in the file."""
    if content.get("model") != name:
        raise InputError(
            f"{source} is a checkpoint of {content.get('model')}, but training.model is {name}: choose the same "
            "model or other weights"
        )
    same_findings = list(content.get("findings", [])) == list(findings)
    wanted = model.state_dict()
    offered, left_out = {}, []
    for key, tensor in content["weights"].items():
        if key in PIXELS:
            continue
        if key.startswith(BODY) or (same_findings and key in wanted and tensor.shape == wanted[key].shape):
            offered[key] = tensor
        else:
            left_out.append(key)
    return offered, left_out


def _other_maps(content: dict, model: XrayClassifier) -> dict[str, str]:
    """What is said of a checkpoint whose weights mean something else in this model. content: the checkpoint's."""
    settings = ("map_stride", "sharpness")
    theirs, ours = ([values.get(name, 0) for name in settings] for values in (content, vars(model)))
    if theirs == ours:
        return {}
    said = (f"training.{name} {value:g}" for name, value in zip(settings, theirs, strict=True))
    return {"classifier.weight": f"learned with {' and '.join(said)}, other than here"}


def _from_file(
    state: dict[str, Tensor], model: XrayClassifier, source: str, name: str
) -> tuple[dict[str, Tensor], list[str], dict[str, str]]:
    """The same for a published state dict, and what was changed; names of unknown layers are kept for `_check_fit`."""
    places = {key.partition(".")[2].removeprefix("network."): key for key in model.state_dict() if key.startswith(BODY)}
    state, heads = with_plain_names(state), HEADS + SECOND_HEADS
    changed = on_our_greys(state, model)
    left_out = [key for key in state if key not in places and key.startswith(NOT_OF_A_CLASSIFIER)]
    state = {key: tensor for key, tensor in state.items() if key not in left_out or key == MASK_TOKEN}
    if name.startswith("timm:"):
        # Imported here, because only timm's networks need timm.
        from training.network.timm_bodies import heads_of, with_timm_names

        heads, named = (*heads, *heads_of(model.body)), with_timm_names(state, model.body, source, name)
        for key in named.keys() & state.keys() & places.keys():
            before, after = tuple(state[key].shape), tuple(named[key].shape)
            if before != after:
                changed[places[key]] = f"resized from {before} to {after}"
        state = named
    offered = {}
    for key, tensor in state.items():
        if key not in places and key.partition(".")[0] in heads:
            left_out.append(key)
        elif key not in left_out:
            offered[places.get(key, f"file.{key}")] = tensor
    return offered, left_out, changed


def _adapt(offered: dict[str, Tensor], model: XrayClassifier) -> dict[str, str]:
    """Changes the tensors of `offered` that can be made to fit. Returns name -> what was done."""
    wanted, adapted = model.state_dict(), {}
    for key, tensor in list(offered.items()):
        target = wanted.get(key, tensor)
        if tensor.shape == target.shape:
            continue
        if target.ndim == 4 and target.shape[1] == 3 and tensor.shape == (len(target), 1, *target.shape[2:]):
            offered[key] = (tensor / 3).expand_as(target)
            adapted[key] = "spread from one grey channel over three"
        elif key == POSITIONS and tensor.ndim == 3 and tensor.shape[::2] == target.shape[::2]:
            patches = tensor.shape[1] - 1
            if math.isqrt(patches) ** 2 == patches:
                resized = {"encoder.pos_embedding": tensor}
                interpolate_embeddings(model.body.image_size, model.body.patch_size, resized)
                offered[key] = resized["encoder.pos_embedding"]
                adapted[key] = f"interpolated from {patches} patches to {target.shape[1] - 1}"
    return adapted


def _check_fit(offered: dict[str, Tensor], wanted: dict[str, Tensor], source: str, name: str) -> None:
    """Raises InputError unless all tensors of body and neck are offered, fit and are finite, and none is unknown."""
    # Files from before PyTorch 0.4.1 do not count batches.
    needed = [key for key in wanted if key.startswith(BODY) and not key.endswith("num_batches_tracked")]
    kinds = {
        "missing": [key for key in needed if key not in offered],
        "unknown": [key.removeprefix("file.") for key in offered if key not in wanted],
        "of another shape": [
            f"{key} {tuple(offered[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in offered
            if key in wanted and offered[key].shape != wanted[key].shape
        ],
        "with NaN or infinity": [key for key, tensor in offered.items() if not tensor.isfinite().all()],
    }
    faults = [f"{len(keys)} {kind} ({', '.join(keys[:3])})" for kind, keys in kinds.items() if keys]
    if faults:
        raise InputError(
            f"{source} does not fit {name}: {'; '.join(faults)}: give weights of {name}, or choose the training.model "
            "that these weights belong to"
        )
