"""Builds a network by its name, and tries the shapes of a step before a training."""

import copy

import torch
from torch import Tensor

from conf.errors import InputError
from conf.settings import Training
from training.network.bodies import build_body
from training.network.models import XrayClassifier
from training.network.strides import refine_map

# Large enough for every body; the number of its output channels does not depend on it.
PROBE_PX = 96


def build_model(
    name: str,
    num_findings: int,
    pixel_mean: float,
    pixel_std: float,
    *,
    size_px: int | None = None,
    channels: int = 1,
    tabular: bool = False,
    exclusive: bool = False,
    map_stride: int = 0,
    sharpness: float = 0.0,
    drop_path: float | None = None,
) -> XrayClassifier:
    """Builds a freshly initialised model, in training mode.

    name, size_px, drop_path: as for build_body. pixel_mean, pixel_std: those of the training split, 0..255. channels: 1
    grey, 3 RGB. tabular: whether there is a branch for age, sex and view. exclusive: whether probabilities are a
    softmax over classes. map_stride: pixels of the image per cell of the maps, see refine_map; 0: the network's own.
    sharpness: how much the strongest place counts, see pool. Raises InputError for another number of channels, for
    sharpness in a network whose class token makes the logits, and for what build_body and refine_map refuse.
    """
    if channels not in (1, 3):
        raise InputError(f"images have {channels} channels, expected 1 (grey) or 3 (RGB)")
    body = build_body(name, size_px, drop_path)
    if map_stride:
        refine_map(body, name, map_stride)
    probe_px = size_px if body.fixed_size else PROBE_PX
    with torch.no_grad():
        probe = body.layers.eval()(torch.zeros(1, 3, probe_px, probe_px))
    places = probe if isinstance(probe, Tensor) else probe[0]
    model = XrayClassifier(
        body,
        places.shape[1],
        num_findings,
        pixel_mean,
        pixel_std,
        channels=channels,
        tabular=tabular,
        exclusive=exclusive,
        exact_maps=places is probe,
        map_stride=map_stride,
        sharpness=sharpness,
    )
    if sharpness and not model.exact_maps:
        raise InputError(
            f"training.sharpness is {sharpness}, but {name} has its logits from a class token, not from its map: leave "
            "training.sharpness out, or choose another training.model"
        )
    return model.train()


def build_for(
    training: Training, num_findings: int, pixel_mean: float, pixel_std: float, channels: int = 1
) -> XrayClassifier:
    """The freshly initialised model of these settings; the other arguments and the errors are those of build_model."""
    return build_model(
        training.model,
        num_findings,
        pixel_mean,
        pixel_std,
        size_px=training.size_px,
        channels=channels,
        tabular=training.tabular,
        exclusive=training.exclusive,
        map_stride=training.map_stride,
        sharpness=training.sharpness,
        drop_path=None if training.drop_path < 0 else training.drop_path,
    )


def check_step(model: XrayClassifier, name: str, size_px: int, num_images: int) -> None:
    """Raises InputError if a training step of `num_images` images with side `size_px` would fail.

    Some networks shrink small images to nothing, and others take only one size. BatchNorm needs more than one value per
    channel, so it needs more than one image if the feature map has a single place.
    """
    # The meta device computes nothing but shapes. It gets a copy, because no weights come back from there.
    shapes = copy.deepcopy(model).train().to("meta")
    try:
        shapes(*model.example_batch(num_images, size_px, "meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(
            f"training.model {name} fails in the smallest step of this training, {num_images} images of {size_px} x "
            f"{size_px} pixels ({error}): choose a larger training.size_px or training.batch_size, or another model"
        ) from error
