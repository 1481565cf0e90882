"""Losses on where a network sees a finding: its map should be largest inside its boxes, or inside the lungs' outline.

The map of a finding becomes a distribution over places by a softmax, and the loss is the negative logarithm of the
share that lies inside the boxes. A softmax does not change if the same number is added at all places, so this loss
leaves the logit, which is the map's mean, to the loss of the labels.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

POINTS_PER_CELL, POINTS = 4, 64
"""smallest number of points per side of a cell, and of a map, that are tested for lying inside a box"""


def place_loss(
    maps: Tensor, boxes: Sequence[np.ndarray], labels: Tensor, origins: Tensor, grid: tuple[float, float]
) -> Tensor:
    """The sum over the pairs of a film and a finding with boxes, a scalar on the device of the maps.

    maps: (batch, findings, s, s) float32, see XrayClassifier.forward. boxes: an array (n, 5) float32 per film:
    index of the finding, left, top, width and height as shares of the original image's side. labels: (batch,
    findings); a box of a finding that is not labelled as present does not count. origins: (batch, 2, 3) float32,
    where the augmentation took each place of the film from, see augment.origins. grid: distance from the image's
    edge to the first cell's centre, and from cell to cell, as shares of the side, see map_grid.py. A pair whose
    boxes cover no point of the augmented film adds nothing: they were moved out of sight, or are smaller than a
    64th of its side.
    """
    present = (labels == 1).tolist()
    known = [
        (film, *box) for film, of_film in enumerate(boxes) for box in of_film.tolist() if present[film][int(box[0])]
    ]
    if not known:
        # Connected to the weights, so that every rank joins the average of the gradients.
        return maps.sum() * 0
    table = torch.tensor(known, dtype=torch.float32, device=maps.device)
    shares = shares_inside(table[:, 2:], origins[table[:, 0].long()], maps.shape[-1], grid)
    pairs, pair_of_box = table[:, :2].long().unique(dim=0, return_inverse=True)
    shares = shares.new_zeros(len(pairs), *shares.shape[1:]).index_add(0, pair_of_box, shares).clamp(max=1).flatten(1)
    return outside_loss(maps[pairs[:, 0], pairs[:, 1]].flatten(1), shares).sum()


def region_loss(maps: Tensor, regions: Tensor, labels: Tensor, origins: Tensor, grid: tuple[float, float]) -> Tensor:
    """The sum over the pairs of a film with a region and a finding that it has, a scalar on the device of the maps.

    regions: (batch, R, R) float32, 0..1, see region_of; a film without one has zeros and adds nothing. The others are
    those of place_loss.
    """
    films, findings = ((labels == 1) & (regions.flatten(1).amax(dim=1, keepdim=True) > 0)).nonzero(as_tuple=True)
    points = points_per_cell(maps.shape[-1])
    places = places_of(origins, maps.shape[-1], points, grid).permute(0, 2, 3, 1)
    # Beyond the film's edge there is no lung.
    moved = nn.functional.grid_sample(regions[:, None], places, padding_mode="zeros", align_corners=False)
    shares = nn.functional.avg_pool2d(moved, points)[:, 0].flatten(1)
    return outside_loss(maps[films, findings].flatten(1), shares[films]).sum()


def outside_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Minus the logarithm of the share of each map's softmax that lies inside, (pairs,) float32, 0 or more.

    logits: (pairs, cells). shares: (pairs, cells), that of each cell that is inside, 0..1; a pair with zeros gets 0.
    """
    most = shares.amax(dim=1, keepdim=True)
    in_sight = most[:, 0] > 0
    # Relative to the cell that is covered most, so that the loss can reach 0 for a box smaller than a cell. The
    # smallest positive number keeps the gradient of cells outside all boxes finite.
    tiny = torch.finfo(torch.float32).tiny
    inside = logits + (shares / most.clamp(min=tiny)).clamp(min=tiny).log()
    return (logits.logsumexp(dim=1) - inside.logsumexp(dim=1)) * in_sight


def shares_inside(boxes: Tensor, origins: Tensor, cells: int, grid: tuple[float, float]) -> Tensor:
    """The share of each cell of a map that lies inside a box, (boxes, cells, cells) float32, 0..1.

    boxes: (boxes, 4) float32, left, top, width and height in the original image. origins: (boxes, 2, 3), those of the
    box's film. grid: as in place_loss.
    """
    points = points_per_cell(cells)
    offset = (places_of(origins, cells, points, grid) + 1) / 2 - boxes[:, :2, None, None]
    inside = ((offset >= 0) & (offset < boxes[:, 2:, None, None])).all(dim=1)
    return nn.functional.avg_pool2d(inside[:, None].float(), points)[:, 0]


def points_per_cell(cells: int) -> int:
    """Points along a cell's side that are tested. cells: along the map's."""
    return max(POINTS_PER_CELL, math.ceil(POINTS / cells))


def places_of(origins: Tensor, cells: int, points: int, grid: tuple[float, float]) -> Tensor:
    """Where the points of a map's cells lie in the original image, (films, 2, P, P) float32: x and y, -1..1 inside it.

    origins: (films, 2, 3). points: per cell along a side; P is cells * points. grid: as in place_loss.
    """
    first, step = grid
    along = (torch.arange(cells * points, device=origins.device) + 0.5) / points - 0.5
    # The first cell may lie on the image's edge; what is beyond the image counts as its edge.
    along = (2 * (first + along * step) - 1).clamp(-1, 1)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.einsum("bkc,cij->bkij", origins, torch.stack([x, y, torch.ones_like(x)]))
