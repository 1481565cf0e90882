"""Class activation maps as pictures of the evidence for a finding in a film. Pure functions, no torch.

A map is in calibrated logits, and its mean, or a soft maximum, is the film's own. So each place has a probability. If
the maps are exact (Properties.exact_maps), it is the one that the film would get, were it like this place all over.
training/network/heat.py says what evidence is and which colours it has; here it is laid over a film in its own
proportions.
"""

import cv2
import numpy as np

from inference.film.answers import OPERATING_POINT
from inference.model.properties import Properties
from training.network.heat import above_threshold, class_log_odds, heat_of_square


def evidence_of(
    maps: np.ndarray, finding: int, properties: Properties, operating_point: str = OPERATING_POINT
) -> np.ndarray:
    """Log odds above the threshold at each place, (s, s) float32; negative if the place speaks against the finding.

    maps: (findings, s, s) float32, of one image. finding: its index. A finding without a threshold is compared with a
    probability of 0.5.
    """
    logits = maps[finding]
    if properties.exclusive:
        logits = (class_log_odds(maps, finding) + properties.shifts[finding]) / properties.temperatures[finding]
    return above_threshold(logits, properties.thresholds[operating_point][finding])


def heat_of(evidence: np.ndarray, width_px: int, height_px: int, properties: Properties) -> np.ndarray:
    """Evidence laid over the film, (height_px, width_px) float32: 0 none, 1 the full colour.

    evidence: (s, s) float32, see evidence_of. width_px, height_px: of the film in its own proportions, at any scale.
    """
    side = max(width_px, height_px)
    heat = heat_of_square(evidence, side, properties.map_first, properties.map_step)
    if properties.square == "stretch":
        return cv2.resize(heat, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    top, left = (side - height_px) // 2, (side - width_px) // 2
    return heat[top : top + height_px, left : left + width_px]


def boxes_on_film(boxes: list[list[float]], width_px: int, height_px: int, properties: Properties) -> list[list[float]]:
    """Boxes as shares of the model's square to shares of the film's own sides; see heat_of for the other arguments."""
    if properties.square == "stretch":
        return boxes
    side = max(width_px, height_px)
    left_px, top_px = (side - width_px) // 2, (side - height_px) // 2
    return [
        [
            (left * side - left_px) / width_px,
            (top * side - top_px) / height_px,
            width * side / width_px,
            height * side / height_px,
        ]
        for left, top, width, height in boxes
    ]


def encode_png(picture: np.ndarray) -> bytes:
    """(h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA, uint8, as a PNG file."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", picture)[1].tobytes()
