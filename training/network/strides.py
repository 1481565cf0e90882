"""Finer feature maps: the last layers of a network keep the resolution and are dilated instead.

The way of Yu, Koltun and Funkhouser, "Dilated residual networks", CVPR 2017, for any network of convolutions: a layer
that would make the map coarser than wanted moves by one place instead of several, and all layers after it look at
places that are as far apart as before; only an average pooling still looks at neighbours. No weight changes, so
published weights fit; the layers after it have more work.
"""

import math

import torch
from torch import nn

from conf.errors import InputError
from training.network.bodies import Body

PROBE_PX = 256
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def refine_map(body: Body, name: str, map_stride: int) -> None:
    """Changes the body, in place, so that a cell of its map has `map_stride` pixels of the image per side.

    body: from bodies.build_body. name: the network's, for messages. Raises InputError, with the body unusable, if the
    network cannot be changed, or if its map is that fine already.
    """
    if body.fixed_size:
        raise _not_possible(name, map_stride, "it cuts the image into patches or windows of one size")
    sides = _sides(body.layers)
    own = _stride(sides["whole"][1])
    if own <= map_stride:
        raise _not_possible(name, map_stride, f"its own map has {own} pixels per cell")
    for layer, (before, after) in sides.items():
        if layer != "whole" and _stride(after) > map_stride:
            _dilate(layer, max(1, _stride(before) // map_stride), max(1, map_stride // _stride(before)))
    try:
        reached = _stride(_sides(body.layers)["whole"][1])
    except RuntimeError as error:
        raise _not_possible(name, map_stride, f"its layers no longer fit together ({error!s:.100})") from error
    if reached != map_stride:
        raise _not_possible(name, map_stride, f"it has layers without windows, and reaches {reached}")


def _sides(body: nn.Module) -> dict[nn.Module | str, tuple[int, int]]:
    """Each layer with a window -> sides of its input and output for an image of PROBE_PX; `whole` -> those of all."""
    sides, hooks = {}, []
    for layer in body.modules():
        if isinstance(layer, WINDOWS):
            hooks.append(
                layer.register_forward_hook(
                    lambda layer, inputs, output: sides.update({layer: (inputs[0].shape[-1], output.shape[-1])})
                )
            )
    with torch.no_grad():
        output = body.eval()(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
    for hook in hooks:
        hook.remove()
    return {**sides, "whole": (PROBE_PX, output.shape[-1])}


def _stride(side: int) -> int:
    """Pixels of the image per cell of a map with this side, to the nearest power of two."""
    return 2 ** round(math.log2(PROBE_PX / side))


def _dilate(layer: nn.Module, rate: int, stride: int) -> None:
    """Lets a layer move by `stride` places and look at places that are `rate` times as far apart."""
    layer.stride = (stride, stride) if isinstance(layer, nn.Conv2d) else stride
    if isinstance(layer, nn.Conv2d):
        layer.dilation = tuple(rate * step for step in layer.dilation)
        layer.padding = tuple(rate * width for width in layer.padding)
    elif isinstance(layer, nn.MaxPool2d):
        layer.dilation, layer.padding = rate * layer.dilation, rate * layer.padding


def _not_possible(name: str, map_stride: int, reason: str) -> InputError:
    return InputError(
        f"training.map_stride is {map_stride}, but {name} cannot have such a map: {reason}; leave it out, choose "
        "another value, or a network of convolutions such as densenet121 or resnet50"
    )
