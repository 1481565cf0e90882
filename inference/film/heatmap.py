"""Class activation maps as pictures of the evidence for a finding in a film. Pure functions, no torch.

A map is in calibrated logits, and its mean, or a soft maximum, is the film's own. So each place has a probability. If
the maps are exact (Properties.exact_maps), it is the one that the film would get, were it like this place all over.
training/network/heat.py says what evidence is and which colours it has; here it is laid over a film in its own
proportions.
"""

import cv2
import numpy as np

from etl.contract.images.lungs.crop import Crop, boxes_in_pixels, boxes_of_crop
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
    logits = class_log_odds(maps, finding) if properties.exclusive else maps[finding]
    return above_threshold(logits, properties.thresholds[operating_point][finding])


def heat_of(
    evidence: np.ndarray, width_px: int, height_px: int, properties: Properties, crop: Crop | None = None
) -> np.ndarray:
    """Evidence laid over the film, (height_px, width_px) float32: 0 none, 1 the full colour.

    evidence: (s, s) float32, see evidence_of. width_px, height_px: of the film in its own proportions, at any scale.
    crop: the part of the film that the model saw, beyond which there is no evidence; None: all of it.
    """
    if crop:
        heat = np.zeros((height_px, width_px), np.float32)
        part = heat[_span(crop.top, crop.height, height_px / crop.film_height)]
        part = part[:, _span(crop.left, crop.width, width_px / crop.film_width)]
        part[:] = heat_of(evidence, part.shape[1], part.shape[0], properties)
        return heat
    side = max(width_px, height_px)
    heat = heat_of_square(evidence, side, properties.map_first, properties.map_step)
    if properties.square == "stretch":
        return cv2.resize(heat, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    top, left = (side - height_px) // 2, (side - width_px) // 2
    return heat[top : top + height_px, left : left + width_px]


def heat_on_square(evidence: np.ndarray, properties: Properties, crop: Crop | None) -> np.ndarray:
    """Evidence laid over the whole film's square, (S, S) float32, S the model's size; otherwise like heat_of."""
    side = properties.size_px
    if crop is None or properties.square == "stretch":
        return heat_of(evidence, side, side, properties, crop)
    scale = side / max(crop.film_width, crop.film_height)
    width, height = (max(1, round(length * scale)) for length in (crop.film_width, crop.film_height))
    square, top, left = np.zeros((side, side), np.float32), (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = heat_of(evidence, width, height, properties, crop)
    return square


def boxes_on_film(
    boxes: list[list[float]], width_px: int, height_px: int, properties: Properties, crop: Crop | None = None
) -> list[list[float]]:
    """Boxes as shares of the model's square to shares of the film's own sides.

    width_px, height_px: of the film. crop: as in heat_of.
    """
    if crop:
        boxes = boxes_of_crop(boxes, crop, properties.square)
    pixels = boxes_in_pixels(boxes, width_px, height_px, properties.square)
    return (pixels / (width_px, height_px, width_px, height_px)).tolist()


def _span(start_px: int, length_px: int, scale: float) -> slice:
    """Where a part of a film, along one side, lies in a picture of it; at least one pixel."""
    first = round(start_px * scale)
    return slice(first, max(first + 1, round((start_px + length_px) * scale)))


def encode_png(picture: np.ndarray) -> bytes:
    """(h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA, uint8, as a PNG file."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", picture)[1].tobytes()
