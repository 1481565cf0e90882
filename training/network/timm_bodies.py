"""Bodies of timm's networks (`timm:NAME`), and their published weight files. The one owner of timm.

Imported only for such a network, because the package is large and not everybody has it.
"""

import difflib
import math
import sys
from collections import OrderedDict
from collections.abc import Iterator

import timm
import torch
from timm.layers import DropPath
from timm.models import group_parameters
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from conf.errors import InputError
from training.network.bodies import Body, no_drop_path

PREFIX = "timm:"
# EVA-X (Yao et al., 2024), as its repository builds it: the networks of EVA-02 with patches of 16 pixels.
OWN_NAMES = {
    f"eva_x_{size}_patch16": (f"eva02_{size}_patch14_224", {"patch_size": 16, "ref_feat_shape": (14, 14)})
    for size in ("tiny", "small", "base")
}
PROBE_PX = 96
POOLINGS = ("avg", "fast", "token")
"""timm's names for poolings that are a mean over the places or a class token"""
SURE_TO_WORK = (
    "such as timm:resnet50, timm:convnext_tiny, timm:vit_base_patch16_224 or timm:swin_tiny_patch4_window7_224"
)
# What timm raises for sizes and options that a network does not take, and for files of another network.
UNFIT = (RuntimeError, ValueError, AssertionError, TypeError, LookupError, AttributeError, NotImplementedError)


class TimmBody(nn.Module):
    """timm's network without its head, with the outputs of a Body's layers."""

    def __init__(self, network: nn.Module, layout: str, num_prefix_tokens: int, has_token: bool):
        """layout: what forward_features returns: NCHW, NHWC, or NLC for tokens. The first num_prefix_tokens tokens
        belong to no patch. has_token: whether the first of them, the class token, makes the logits."""
        super().__init__()
        self.network = network
        self.layout, self.num_prefix_tokens, self.has_token = layout, num_prefix_tokens, has_token

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.network.forward_features(images)
        if self.layout == "NCHW":
            return features
        if self.layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        patches = features[:, self.num_prefix_tokens :].transpose(1, 2)
        places = patches.unflatten(2, (math.isqrt(patches.shape[2]),) * 2)
        return (places, features[:, 0]) if self.has_token else places

    def layer_groups(self) -> list[list[str]]:
        """Names of the parameters, layer by layer from the input on, as timm groups them. Empty if it does not."""
        if not hasattr(self.network, "group_matcher"):
            return []
        groups = group_parameters(self.network, self.network.group_matcher(coarse=False))
        return [[f"network.{name}" for name in groups[layer]] for layer in sorted(groups)]


def build_timm_body(name: str, size_px: int | None, drop_path: float | None = None) -> Body:
    """Builds the body of timm's classifier `name`, which begins with `timm:`; a tag after a dot changes nothing.

    size_px, drop_path: as in build_body. The body is forward_features. Its head must be a mean over the places or a
    class token, then nothing but a LayerNorm, dropout and one linear layer; only then has the model maps whose meaning
    is known. Raises InputError for any other head, and for an unknown name.
    """
    if size_px is None:
        raise InputError(f"training.model {name} may be built for one input size: pass size_px to build_model")
    known, options = OWN_NAMES.get(name.removeprefix(PREFIX), (name.removeprefix(PREFIX), {}))
    if not timm.is_model(known):
        near = difflib.get_close_matches(known, [*timm.list_models(), *OWN_NAMES], n=3)
        raise InputError(
            f"training.model is {name!r}, which timm {timm.__version__} does not have"
            + (f": did you mean {', '.join(PREFIX + one for one in near)}?" if near else "")
        )
    if drop_path is not None:
        options = options | {"drop_path_rate": drop_path}
    network, fixed_size = _create(name, known, size_px, options)
    if drop_path and not any(isinstance(part, DropPath) for part in network.modules()):
        raise InputError(no_drop_path(name, drop_path))
    patch_px = _patch_px(network)
    if fixed_size and patch_px and size_px % patch_px:
        raise InputError(
            f"training.model {name} cuts images into patches of {patch_px} pixels, but they have {size_px} x {size_px} "
            f"pixels: choose a training.size_px that is a multiple of {patch_px}, or another model"
        )
    # A network that takes any size may still shrink a small image to nothing; check_step says so.
    body, neck = _without_head(network, name, size_px if fixed_size else max(size_px, PROBE_PX))
    return Body(body, neck, fixed_size, even_cells=body.layout == "NLC" and patch_px > 0)


def _without_head(network: nn.Module, name: str, side: int) -> tuple[TimmBody, nn.Module]:
    """The body and the neck. Raises InputError if they do not pass to the last layer what timm's network passes to it.

    side: side of the random images that are tried, pixels.
    """
    device = next(network.parameters()).device
    images = torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(0), device="cpu").to(device)
    try:
        with torch.no_grad():
            features = network.eval().forward_features(images)
            expected = network.forward_head(features, pre_logits=True)
    except UNFIT as error:
        raise InputError(
            f"training.model {name} does not take images of {side} x {side} pixels, or has not the usual parts "
            f"({error!s:.200}): choose another training.size_px (a multiple of the network's patches), or another "
            f"model, {SURE_TO_WORK}"
        ) from error
    body = TimmBody(network, *_layout(network, features, name))
    neck = _take_neck(network)
    pooled = _pool(body, images, neck)
    same = pooled.shape == expected.flatten(1).shape
    # On the meta device there are no values to compare; networks are checked there before they are built.
    if same and device.type != "meta":
        same = torch.allclose(pooled, expected.flatten(1), rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    if not same or _pooling(network) not in POOLINGS:
        raise InputError(
            f"training.model {name} does not end in a mean over its places or a class token and one linear layer "
            f"(its pooling is {_pooling(network)!r}, its head {type(getattr(network, 'head', None)).__name__}), so its "
            f"maps would not be its logits: choose another model, {SURE_TO_WORK}"
        )
    return body, neck


def _create(name: str, known: str, size_px: int, options: dict) -> tuple[nn.Module, bool]:
    """The network without its last layer, randomly initialised, and whether it was built for images of size_px."""
    # A network that resizes its position embeddings in each forward pass cannot be exported.
    for size in ({"img_size": size_px, "dynamic_img_size": False}, {"img_size": size_px}, {}):
        try:
            return timm.create_model(known, num_classes=0, **options, **size), bool(size)
        except TypeError as error:
            if any(f"'{option}'" in str(error) for option in size):
                continue
            if "drop_path_rate" in str(error):
                raise InputError(no_drop_path(name, options["drop_path_rate"])) from error
            raise
        except (RuntimeError, ValueError, AssertionError) as error:
            raise InputError(
                f"training.model {name} does not take images of {size_px} x {size_px} pixels ({error!s:.200}): choose "
                "a training.size_px that is a multiple of its patches, or another model"
            ) from error
    raise AssertionError("the last try passes no size")


def _layout(network: nn.Module, features: Tensor, name: str) -> tuple[str, int, bool]:
    """The arguments of TimmBody after the network."""
    if isinstance(features, Tensor) and features.ndim == 4:
        return ("NHWC" if getattr(network, "output_fmt", "NCHW") == "NHWC" else "NCHW"), 0, False
    if isinstance(features, Tensor) and features.ndim == 3:
        prefix, has_token = getattr(network, "num_prefix_tokens", 0), _pooling(network) == "token"
        num_patches = features.shape[1] - prefix
        if math.isqrt(num_patches) ** 2 == num_patches and (prefix or not has_token):
            return "NLC", prefix, has_token
    shapes = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise InputError(
        f"training.model {name} ends in neither a feature map nor tokens of a square of patches (its features are "
        f"{shapes}): choose another model, {SURE_TO_WORK}"
    )


def _pooling(network: nn.Module) -> str:
    """timm's name of the pooling, such as `avg`."""
    for owner in (network, getattr(network, "head", None)):
        pooling = getattr(owner, "global_pool", None)
        if pooling is not None:
            return pooling if isinstance(pooling, str) else str(getattr(pooling, "pool_type", type(pooling).__name__))
    return "avg"


def _take_neck(network: nn.Module) -> nn.Sequential:
    """Moves the LayerNorm between the pooling and the last layer out of the network, under its name."""
    for path in ("fc_norm", "head.norm"):
        owner, _, last = path.rpartition(".")
        parent = network.get_submodule(owner) if owner == "" or hasattr(network, owner) else None
        norm = getattr(parent, last, None)
        if isinstance(norm, nn.LayerNorm) and norm.weight is not None:
            setattr(parent, last, nn.Identity())
            own = LayerNorm2d(norm.normalized_shape, eps=norm.eps)
            own.weight, own.bias = norm.weight, norm.bias
            neck = nn.Sequential(OrderedDict({last: own}))
            return nn.Sequential(OrderedDict({owner: neck})) if owner else neck
    return nn.Sequential()


def _patch_px(network: nn.Module) -> int:
    """Side of the patches into which the network first cuts the image, pixels; 0 if it begins otherwise."""
    first = getattr(getattr(network, "patch_embed", None), "proj", None)
    return first.stride[0] if isinstance(first, nn.Conv2d) and first.kernel_size == first.stride else 0


def _pool(body: TimmBody, images: Tensor, neck: nn.Module) -> Tensor:
    """The features before the last layer as XrayClassifier computes them, (batch, channels)."""
    with torch.no_grad():
        features = body(images)
        pooled = (
            features.mean(dim=(2, 3), keepdim=True) if isinstance(features, Tensor) else features[1][..., None, None]
        )
        return neck.eval()(pooled).flatten(1)


def with_timm_names(state: dict[str, Tensor], body: TimmBody, source: str, name: str) -> dict[str, Tensor]:
    """A weight file's tensors as timm would load them into the network: renamed, and resized to its images.

    state: name -> tensor, as the network's authors or timm have published it. source, name: the file and the network,
    for messages. Raises InputError for a file of a network that timm cannot make fit.
    """
    convert = getattr(sys.modules[type(body.network).__module__], "checkpoint_filter_fn", None)
    try:
        return convert(dict(state), body.network) if convert else dict(state)
    except UNFIT as error:
        raise InputError(
            f"{source} does not fit {name} ({error!s:.160}; its tensors are {', '.join([*state][:3])}, ...): give "
            f"weights of {name}, or choose the training.model that these weights belong to"
        ) from error


def heads_of(body: TimmBody) -> Iterator[str]:
    """What the names of the last layers' tensors begin with, such as `head`."""
    names = body.network.pretrained_cfg.get("classifier") or ()
    for name in (names,) if isinstance(names, str) else names:
        yield name.partition(".")[0]
