"""Weight files as their authors publish them: how they are opened, and which of our names their tensors have."""

import argparse
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from conf.errors import InputError
from training.network.checkpoint import UNREADABLE
from training.network.models import XrayClassifier

WRAPPERS = ("state_dict", "model", "module")
"""keys under which a file may hold its state dict, beside optimizers and arguments"""
PREFIXES = ("module.", "densenet121.", "dinov2.")
"""what DataParallel, CheXNet's authors and Hugging Face's classifiers put before each name"""
NOT_OF_A_CLASSIFIER = ("op_threshs", "mask_token", "decoder_", "lm_head.")
"""thresholds of torchxrayvision, and what reconstructs masked patches in a pre-training"""
HARMLESS = [
    argparse.Namespace,
    np.core.multiarray.scalar,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8")),
]
"""types in files of masked autoencoders, beside tensors; making them runs no code of the file"""
# Hugging Face's Dinov2Model -> timm's vit_*_dinov2, in this order.
DINOV2 = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
XRV_HIGHEST = 1024
"""torchxrayvision's networks take greys from minus this to this"""


def open_weights(path: Path) -> object:
    """What the file holds, on the CPU, without running code from it. Raises InputError if it is not readable."""
    try:
        if path.suffix == ".safetensors":
            return _open_safetensors(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        with path.open("rb") as file:
            start = file.read(24)
        raise InputError(
            f"{path} is not a readable weight file (it begins with {start!r}; {str(error) or repr(error):.160}): copy "
            "or download it again or, if it holds more than tensors, save it again with "
            "torch.save(network.state_dict(), FILE)"
        ) from error


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    if find_spec("safetensors") is None:
        raise InputError(
            f"{path} needs the Python module safetensors, which is not installed: run `make setup`, or "
            "`pip install safetensors` where pip installed CheXScale"
        )
    # Imported here, because few trainings need it.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(error) from error


def unwrapped(content: object) -> object:
    """The state dict in a file's content, or what else is there."""
    while isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            return content
        content = inner
    return content


def with_plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of torchvision and timm, without prefixes; unknown names stay.

    DenseNet's old names (`norm.1`) get torchvision's new ones (see its densenet.py). Of Hugging Face's Dinov2Model, as
    RAD-DINO is published, query, key and value become one tensor, as in timm.
    """
    plain = {}
    for key, tensor in state.items():
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
        plain[re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)] = tensor
    return _dinov2_names(plain) if "embeddings.patch_embeddings.projection.weight" in plain else plain


def _dinov2_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in state.items():
        if match := re.search(r"\.attention\.attention\.(query|key|value)\.(weight|bias)$", key):
            if match[1] != "query":
                continue
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            if missing := [part for part in parts if part not in state]:
                raise InputError(f"the weight file lacks {missing[0]} beside {key}: download it again")
            key = f"{key[: match.start()]}.attn.qkv.{match[2]}"
            tensor = torch.cat([state[part] for part in parts])
        for pattern, name in DINOV2:
            key = re.sub(pattern, name, key)
        renamed[key] = tensor
    return renamed


def on_our_greys(state: dict[str, Tensor], model: XrayClassifier) -> dict[str, str]:
    """Makes torchxrayvision's DenseNet take the model's normalised greys, in place. Returns name -> what was done.

    Its first convolution expects greys between -1024 and 1024, some hundred times as large as ours. The factor goes
    into its weights, and the offset into the mean of the normalisation behind it; only at the border, where a
    convolution sees zeros, the features change a little.
    """
    conv, mean = "features.conv0.weight", "features.norm0.running_mean"
    if not {"op_threshs", conv, mean} <= state.keys():
        return {}
    step = 2 * XRV_HIGHEST / 255
    state[mean] = state[mean] - (step * model.pixel_mean - XRV_HIGHEST) * state[conv].sum(dim=(1, 2, 3))
    state[conv] = state[conv] * (step * model.pixel_std)
    return {f"body.{mean}": "and the convolution before it fitted to our greys instead of torchxrayvision's"}
