"""Random changes to the images of a batch, made on the device."""

import math

import torch
from torch import Tensor, nn

MAX_ROTATION_DEGREES = 7.0
# Shares of the image's side, of its scale, and of each pixel's distance from the image's mean.
MAX_SHIFT = 0.06
MAX_ZOOM = 0.12
MAX_CONTRAST = 0.15


def draw_changes(num_images: int, seed: int) -> Tensor:
    """Random numbers for `augment`, (num_images, 5) float32, -1..1.

    They are drawn on the CPU, so that a seed gives the same changes on every device.
    """
    return torch.rand(num_images, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def origins(draws: Tensor) -> Tensor:
    """For each changed image, the affine map from its places to those of the original, (batch, 2, 3) float32.

    draws: from draw_changes. Places are (x, y) from the image's centre, -1..1 from edge to edge.
    """
    angle = draws[:, 0] * math.radians(MAX_ROTATION_DEGREES)
    zoom = 1 + draws[:, 1] * MAX_ZOOM
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    # Shares of the image's side, times two because places run from -1 to 1.
    shift_x, shift_y = draws[:, 2] * MAX_SHIFT * 2, draws[:, 3] * MAX_SHIFT * 2
    return torch.stack([cos, -sin, shift_x, sin, cos, shift_y], dim=1).view(-1, 2, 3)


def augment(pixels: Tensor, draws: Tensor) -> Tensor:
    """Rotates, shifts and zooms each image and changes its contrast, by random amounts of its own.

    pixels: (batch, S, S) or (batch, S, S, 3) uint8. draws: from draw_changes, on the same device. Returns float32 of
    the same shape, 0..255, on that device. Images are not mirrored, because the heart is on the left.
    """
    # (batch, channels, S, S)
    images = pixels.float().unsqueeze(1) if pixels.ndim == 3 else pixels.float().permute(0, 3, 1, 2)
    grid = nn.functional.affine_grid(origins(draws), list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast = 1 + draws[:, 4, None, None, None] * MAX_CONTRAST
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    changed = ((moved - mean) * contrast + mean).clamp(0, 255)
    return changed.squeeze(1) if pixels.ndim == 3 else changed.permute(0, 2, 3, 1)
