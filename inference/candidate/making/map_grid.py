"""Where in the image does each cell of a class activation map lie? It depends on the network's paddings.

The strided convolutions of a ResNet, padded on both sides, put the first cell at the image's edge, half a cell away
from where an enlarged picture of the map would have it; pooling without padding, as in DenseNet or VGG, puts it where
that has it. So it is measured, by gradients: the centre of what a cell's value depends on most, its effective receptive
field (Luo et al., NeurIPS 2016).
"""

import math

import torch

from training.network.models import XrayClassifier

NUM_CELLS = 7
"""of the map, at least: its middle cells see little of the image's border"""
NUM_IMAGES = 4


def measure_map_grid(classifier: XrayClassifier, size_px: int) -> tuple[float, float]:
    """Centre of the first cell from the image's edge, and distance from cell to cell, as shares of the side, 0..1.

    classifier: in evaluation mode, on the CPU, of a model with maps; size_px: side at which it is served. Good to about
    a fifteenth of a cell. A network whose cells look everywhere alike (maxvit) is taken to divide the image evenly.
    """
    with torch.inference_mode():
        cells = classifier.feature_map(torch.zeros(1, size_px, size_px, dtype=torch.uint8)).shape[-1]
    even = size_px / cells
    side = max(size_px, NUM_CELLS * math.ceil(even))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, side, side), generator=generator).float().requires_grad_()
    places = classifier.feature_map(pixels)
    # Not their sum, which a network that ends in a LayerNorm makes the same everywhere.
    values = torch.einsum("ncij,c->ij", places, torch.randn(places.shape[1], generator=generator))
    middle = places.shape[-1] // 2
    before, after = (_centre(values[cell, cell], pixels) for cell in (middle - 1, middle + 1))
    distance = (after - before) / 2
    if not even / 2 < distance < even * 2:
        return even / 2 / size_px, even / size_px
    # Each layer of these networks shrinks by 1, 2 or 4.
    step = 2 ** round(math.log2(distance))
    return ((before + after) / 2 - middle * step) / size_px, step / size_px


def _centre(value: torch.Tensor, pixels: torch.Tensor) -> float:
    """Of what the value of a place on the diagonal depends on, in pixels from the edge, along both sides alike."""
    (gradient,) = torch.autograd.grad(value, pixels, retain_graph=True)
    # Squared twice: the wide, faint rim of the field is cut off by the image's border, on one side more.
    weight = gradient.square().sum(dim=0).square()
    along = weight.sum(dim=0) + weight.sum(dim=1)
    return float(along @ (torch.arange(len(along)) + 0.5) / along.sum())
