"""Do the heat maps show where the radiologists saw the finding? Compares class activation maps with boxes.

Pointing game: Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, without its tolerance.
IoU of a thresholded map: Wang et al., "ChestX-ray8", CVPR 2017, with one threshold, half of the map's range.
Where a map's cells lie in the image: training/network/map_grid.py.
"""

from dataclasses import dataclass

import numpy as np

from training.network.heat import enlarge

IOU_THRESHOLDS = (0.1, 0.25, 0.5)
MAP_LEVEL = 0.5
"""share of a map's range, from its smallest to its largest value; the map above it counts as the finding's place"""


@dataclass(frozen=True)
class Overlap:
    """One finding in one image: its map compared with its boxes."""

    finding: int
    hit: bool
    """whether the centre of the map's largest cell lies in a box"""
    iou: float
    """intersection over union, 0..1, of the boxes' area and the map above MAP_LEVEL"""
    box_share: float
    """share of the image's area that the boxes cover: how often a random place would be a hit"""


def overlaps_of(maps: np.ndarray, boxes: np.ndarray, size_px: int, grid: tuple[float, float]) -> list[Overlap]:
    """Compares the map of each finding that has boxes in this image with its boxes.

    maps: (findings, s, s) float32. boxes: (5 * n,) as in the contract: index of the finding, left, top, width and
    height as shares of the image's side. size_px: the model's image size, at which maps and boxes are compared. grid:
    distance from the image's edge to the first cell's centre, and from cell to cell, as shares of the side.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 5)
    found = []
    for finding in np.unique(boxes[:, 0]).astype(int):
        inside = np.zeros((size_px, size_px), bool)
        for left, top, width, height in boxes[boxes[:, 0] == finding, 1:]:
            # Every box covers at least one pixel.
            columns, rows = (
                slice(int(start * size_px), max(int(start * size_px) + 1, round((start + length) * size_px)))
                for start, length in ((left, width), (top, height))
            )
            inside[rows, columns] = True
        heat = enlarge(maps[finding], size_px, *grid)
        above = heat >= heat.min() + MAP_LEVEL * (heat.max() - heat.min())
        iou = (above & inside).sum() / (above | inside).sum()
        centres = grid[0] + np.array(divmod(int(maps[finding].argmax()), maps.shape[-1])) * grid[1]
        hit = inside[tuple(np.clip(centres * size_px, 0, size_px - 1).astype(int))]
        found.append(Overlap(finding, bool(hit), float(iou), float(inside.mean())))
    return found


def summarise(overlaps: list[Overlap], findings: list[str]) -> dict[str, dict]:
    """Returns, for each finding and for `all`, the number of images with boxes and means over them, ready for JSON.

    All means are 0..1. Findings without boxes are left out; an empty list gives an empty dictionary.
    """
    groups: dict[str, list[Overlap]] = {}
    for overlap in sorted(overlaps, key=lambda overlap: overlap.finding):
        groups.setdefault(findings[overlap.finding], []).append(overlap)
    if overlaps:
        groups["all"] = overlaps
    return {
        name: {
            "images": len(group),
            "pointing_game": float(np.mean([overlap.hit for overlap in group])),
            "chance": float(np.mean([overlap.box_share for overlap in group])),
            "mean_iou": float(np.mean([overlap.iou for overlap in group])),
            **{f"iou_{level}": float(np.mean([overlap.iou >= level for overlap in group])) for level in IOU_THRESHOLDS},
        }
        for name, group in groups.items()
    }
