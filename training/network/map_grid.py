"""Measures where in the image each cell of a class activation map lies, which depends on the network's padding.

An enlarged picture of the map would have the centre of the first cell half a cell from the image's edge. Pooling
without padding, as in DenseNet or VGG, indeed puts it there, but the strided convolutions of a ResNet, padded on both
sides, put it at the edge itself. So the position is measured by gradients. It is the centre of the pixels on which a
cell's value depends most, the cell's effective receptive field (Luo et al., NeurIPS 2016).
"""

import math

import torch

from training.network.models import XrayClassifier

NUM_CELLS, NUM_FINE_CELLS = 7, 24
"""smallest side of a map, in cells, whose middle cells see little of the image's border. The second number is for maps
that were made finer: their cells are smaller, and each sees as much of the image as before"""
NUM_IMAGES = 4


def measure_map_grid(classifier: XrayClassifier, size_px: int) -> tuple[float, float]:
    """Returns the distances from the image's edge to the first cell's centre, and from cell to cell.

    Both are shares of the image's side, 0..1, accurate to about a fifteenth of a cell. Cells that are patches (vit_*)
    divide the image evenly, and so do, by assumption, the cells of a network that all see the whole image alike
    (maxvit), and fewer than NUM_CELLS in a row of a network that takes only one size.
    classifier: a model with maps, in evaluation mode, on the CPU. size_px: side of the images at which it is served.
    """
    colours = (3,) * (classifier.channels == 3)
    with torch.inference_mode():
        cells = classifier.feature_map(torch.zeros(1, size_px, size_px, *colours, dtype=torch.uint8)).shape[-1]
    even = size_px / cells
    num_cells = NUM_FINE_CELLS if classifier.map_stride else NUM_CELLS
    side = size_px if classifier.fixed_size else max(size_px, num_cells * math.ceil(even))
    if classifier.even_cells or side / even < num_cells:
        return even / 2 / size_px, even / size_px
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, side, side, *colours), generator=generator).float().requires_grad_()
    places = classifier.feature_map(pixels)
    # Channels are weighted at random: a network that ends in a LayerNorm makes their plain sum the same everywhere.
    values = torch.einsum("ncij,c->ij", places, torch.randn(places.shape[1], generator=generator))
    middle = places.shape[-1] // 2
    before, after = (_centre(values[cell, cell], pixels) for cell in (middle - 1, middle + 1))
    distance = classifier.map_stride or (after - before) / 2
    if not even / 2 < distance < even * 2:
        return even / 2 / size_px, even / size_px
    # Each layer of these networks shrinks the image by a factor of 1, 2 or 4.
    step = 2 ** round(math.log2(distance))
    return ((before + after) / 2 - middle * step) / size_px, step / size_px


def _centre(value: torch.Tensor, pixels: torch.Tensor) -> float:
    """Returns the centre of the pixels on which a value on the map's diagonal depends.

    The centre is in pixels from the edge, averaged over rows and columns.
    """
    (gradient,) = torch.autograd.grad(value, pixels, retain_graph=True)
    # Squared twice, to play down the field's wide, faint rim: the image's border cuts more of it off on one side.
    gradient = gradient / gradient.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    weight = gradient.square() if gradient.ndim == 3 else gradient.square().sum(dim=3)
    weight = weight.sum(dim=0).square()
    along = weight.sum(dim=0) + weight.sum(dim=1)
    return float(along @ (torch.arange(len(along)) + 0.5) / along.sum())
