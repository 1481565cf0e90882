"""Random changes of a batch, made on the device."""

import math

import torch
from torch import Tensor, nn

MAX_ROTATION_DEGREES = 7.0
# Of the image's side, of its scale, of each pixel's distance from the image's mean.
MAX_SHIFT = 0.06
MAX_ZOOM = 0.12
MAX_CONTRAST = 0.15


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image rotated, shifted, zoomed and changed in contrast by its own random amount.

    pixels: (batch, S, S) uint8. Returns (batch, S, S) float32, 0..255, on the same device. No mirroring: the heart is
    on the left. generator: on the CPU, so that the same seed draws the same changes on every device.
    """
    batch = len(pixels)
    draws = (torch.rand(batch, 5, generator=generator) * 2 - 1).to(pixels.device)
    angle = draws[:, 0] * math.radians(MAX_ROTATION_DEGREES)
    zoom = 1 + draws[:, 1] * MAX_ZOOM
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    # Shares of the image's side; grid coordinates run from -1 to 1.
    shift_x, shift_y = draws[:, 2] * MAX_SHIFT * 2, draws[:, 3] * MAX_SHIFT * 2
    affine = torch.stack([cos, -sin, shift_x, sin, cos, shift_y], dim=1).view(batch, 2, 3)
    images = pixels.float().unsqueeze(1)
    grid = nn.functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False).squeeze(1)
    contrast = 1 + draws[:, 4, None, None] * MAX_CONTRAST
    mean = moved.mean(dim=(1, 2), keepdim=True)
    return ((moved - mean) * contrast + mean).clamp(0, 255)
