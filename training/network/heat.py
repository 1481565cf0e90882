"""Class activation maps as colours over a film. Pure functions on arrays, no torch.

**Evidence** is how far a place of a map lies above the finding's threshold, in log odds; at the threshold and below
there is none, and nothing is painted. The colours run from there to the strongest place of the same map, but at least
to FULL_COLOUR: a map with little evidence stays pale, and two maps are compared by their probabilities, not by their
colours.
"""

import math

import cv2
import numpy as np

# Nine times the threshold's odds. Below this, noise of the map would be painted as brightly as a large finding.
FULL_COLOUR = float(np.log(9))
OPACITY = 0.5
# Thresholds of 0 or 1, whose log odds are infinite, are moved to these.
NO_ODDS = 1e-6
# Perceptually uniform, read by the colour-blind too, violet to gold: seen on black and on white. Without its dark blue,
# which is lost on a dark lung, and its last yellow, which turns green there.
COLOUR_MAP, SHADES = cv2.COLORMAP_PLASMA, (50, 235)
# Below this share of the full colour, a place is the more transparent the less evidence it has.
OPAQUE_FROM = 0.6
BOX_RGB = (64, 224, 208)


def class_log_odds(maps: np.ndarray, finding: int) -> np.ndarray:
    """Log odds of one of several exclusive classes at each place, (s, s).

    maps: (classes, s, s), logits of a softmax.
    """
    others = np.delete(maps, finding, axis=0)
    largest = others.max(axis=0)
    return maps[finding] - largest - np.log(np.exp(others - largest).sum(axis=0))


def above_threshold(logits: np.ndarray, threshold: float | None) -> np.ndarray:
    """Evidence at each place, (s, s) float32; negative if the place speaks against the finding.

    logits: (s, s), calibrated. threshold: a probability; None: 0.5.
    """
    probability = 0.5 if threshold is None else np.clip(threshold, NO_ODDS, 1 - NO_ODDS)
    return (logits - np.log(probability / (1 - probability))).astype(np.float32)


def heat_of_square(evidence: np.ndarray, size_px: int, first: float, step: float) -> np.ndarray:
    """Evidence laid over the model's square, (size_px, size_px) float32: 0 none, 1 the full colour.

    evidence: (s, s) float32. first, step: where the map's cells lie, see map_grid.py.
    """
    return enlarge(evidence / max(float(evidence.max()), FULL_COLOUR), size_px, first, step).clip(0, 1)


def enlarge(heat: np.ndarray, size_px: int, first: float, step: float) -> np.ndarray:
    """A map, (s, s) float32, to (size_px, size_px) float32: smoothly, each cell where it lies in the image.

    first, step: distance from the image's edge to the first cell's centre, and from cell to cell, as shares of the
    image's side; see map_grid.py.
    """
    cell_px, first_px = step * size_px, first * size_px
    # Beyond its cells, a map keeps the values of its edge up to the image's border, and two cells more for cubics.
    before = max(0, math.ceil(first_px / cell_px)) + 2
    after = max(0, math.ceil((size_px - first_px) / cell_px) - len(heat)) + 2
    padded = np.pad(heat.astype(np.float32), (before, after), mode="edge")
    side = round(len(padded) * cell_px)
    # Not warpAffine: it rounds places to 1/32 cell, which shows as stripes in a large picture.
    large = cv2.resize(padded, (side, side), interpolation=cv2.INTER_CUBIC)
    start = round((before + 0.5) * cell_px - first_px)
    return large[start : start + size_px, start : start + size_px]


def paint_heat(heat: np.ndarray) -> np.ndarray:
    """The heat map alone, to be laid over a film: (h, w, 4) uint8 RGBA, transparent without evidence.

    heat: (h, w) float32, 0..1.
    """
    shade = np.rint(np.interp(heat, (0, 1), SHADES)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(shade, COLOUR_MAP), cv2.COLOR_BGR2RGB)
    alpha = np.rint(255 * np.minimum(heat / OPAQUE_FROM, 1)).astype(np.uint8)
    return np.dstack([colours, alpha])


def overlay(
    film: np.ndarray, heat: np.ndarray, opacity: float = OPACITY, boxes: list[list[float]] | None = None
) -> np.ndarray:
    """The film with the heat map over it, (h, w, 3) uint8 RGB.

    film: (h, w) grey or (h, w, 3) RGB, uint8. heat: (h, w) float32, 0..1. opacity: 0..1, of the places with evidence.
    boxes: left, top, width and height as shares of the film's sides, outlined.
    """
    rgba = paint_heat(heat)
    alpha = rgba[..., 3:].astype(np.float32) * (opacity / 255)
    blended = (film if film.ndim == 3 else film[..., None]) * (1 - alpha) + rgba[..., :3] * alpha
    picture = np.rint(blended).astype(np.uint8)
    height, width = film.shape[:2]
    for left, top, box_width, box_height in boxes or []:
        start = round(left * width), round(top * height)
        end = round((left + box_width) * width), round((top + box_height) * height)
        cv2.rectangle(picture, start, end, BOX_RGB, max(1, max(height, width) // 250))
    return picture
