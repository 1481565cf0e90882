"""The part of a film that is kept, the same for the table and for every served film, and where boxes lie in it."""

from typing import NamedTuple

import cv2
import numpy as np

from etl.contract.images.lungs.files import FINDER
from etl.contract.images.lungs.finder import find_lungs
from etl.contract.images.lungs.graph import box_of_field, lung_field, open_network

KEPT_WHOLE = "no lung field found: the whole film was taken instead of the lungs"
"""what an answer says of a film that should have been cropped and was not"""


class Crop(NamedTuple):
    """The part of a film that is kept, in pixels of the film, upright."""

    left: int
    top: int
    width: int
    height: int
    film_width: int
    film_height: int

    def to_dict(self) -> dict[str, int]:
        """The part, without the film's own sides, ready for JSON."""
        return {name: getattr(self, name) for name in ("left", "top", "width", "height")}

    def of(self, film: np.ndarray) -> np.ndarray:
        """This part of a film, (film_height, film_width) or (film_height, film_width, channels), in its own memory."""
        return np.ascontiguousarray(film[self.top : self.top + self.height, self.left : self.left + self.width])


def crop_film(film: np.ndarray, crop: str, margin: float, lungs: str = FINDER) -> tuple[np.ndarray, Crop | None]:
    """The part of a film that a model sees, and where it was; the film itself and None if it is kept whole.

    film: (height, width) uint8 grey or (height, width, 3) uint8 RGB, as decoded, before its greys are adjusted. crop:
    `none`, or `lungs`, with `margin` of the lungs' width and height added on each side as far as the film reaches. A
    film on which no lungs are found is kept whole. lungs: as etl.lungs. Raises ValueError for another `crop`,
    InputError if `lungs` is no folder of a lung network.
    """
    if crop == "none":
        return film, None
    if crop != "lungs":
        raise ValueError(f"crop is {crop!r}, expected none or lungs")
    grey = film if film.ndim == 2 else cv2.cvtColor(film, cv2.COLOR_RGB2GRAY)
    field = find_field(grey, lungs)
    if field is None:
        return film, None
    found = crop_around(field, margin, film.shape[1], film.shape[0])
    return found.of(film), found


def find_field(film: np.ndarray, lungs: str) -> tuple[float, float, float, float] | None:
    """The box around both lungs, as find_lungs returns it, by the finder or by a network. lungs: as etl.lungs."""
    if lungs == FINDER:
        return find_lungs(film)
    square, (height, width) = lung_field(film, lungs), film.shape
    sides, shift = _frame(width, height, open_network(lungs).square)
    # The film's part of the square, without the black beside it.
    left, top = np.round(shift[:2] / sides[:2] * len(square)).astype(int)
    box = box_of_field(square[top : len(square) - top, left : len(square) - left])
    if box is None:
        return None
    pixels = (np.array(box) + (left, top, 0, 0)) / len(square) * sides - shift
    start, end = (np.clip(edge / (width, height), 0, 1) for edge in (pixels[:2], pixels[:2] + pixels[2:]))
    return tuple(float(number) for number in (*start, *(end - start)))


def crop_around(field: tuple[float, float, float, float], margin: float, width: int, height: int) -> Crop:
    """The crop of a film of this width and height, in pixels, around a field as find_lungs returns it."""
    left, top, field_width, field_height = field
    start_x, end_x = _widen(left, field_width, margin, width)
    start_y, end_y = _widen(top, field_height, margin, height)
    return Crop(start_x, start_y, end_x - start_x, end_y - start_y, width, height)


def boxes_in_crop(boxes: np.ndarray, crop: Crop, square: str) -> np.ndarray:
    """Boxes as shares of the whole film's square to shares of the crop's square.

    boxes: (n, 4), left, top, width and height; beyond 0..1 where a box exceeds the crop. square: as in to_square.
    """
    pixels = boxes_in_pixels(boxes, crop.film_width, crop.film_height, square)
    return boxes_in_square(pixels - (crop.left, crop.top, 0, 0), crop.width, crop.height, square)


def place_boxes(boxes: list[float], crop: Crop | None, square: str) -> list[float]:
    """Boxes of the contract's format, of the whole film, as they lie in its crop. square: as in to_square."""
    if crop is None or not len(boxes):
        return boxes
    numbered = np.array(boxes, np.float64).reshape(-1, 5)
    numbered[:, 1:] = boxes_in_crop(numbered[:, 1:], crop, square)
    return numbered.ravel().tolist()


def boxes_of_crop(boxes: np.ndarray, crop: Crop, square: str) -> np.ndarray:
    """The reverse of boxes_in_crop."""
    pixels = boxes_in_pixels(boxes, crop.width, crop.height, square)
    return boxes_in_square(pixels + (crop.left, crop.top, 0, 0), crop.film_width, crop.film_height, square)


def boxes_in_pixels(boxes: np.ndarray, width: int, height: int, square: str) -> np.ndarray:
    """(n, 4) boxes as shares of a square to pixels of the picture, of this width and height, that became the square."""
    sides, shift = _frame(width, height, square)
    return np.reshape(boxes, (-1, 4)) * sides - shift


def boxes_in_square(boxes: np.ndarray, width: int, height: int, square: str) -> np.ndarray:
    """The reverse of boxes_in_pixels."""
    sides, shift = _frame(width, height, square)
    return (np.reshape(boxes, (-1, 4)) + shift) / sides


def _frame(width: int, height: int, square: str) -> tuple[np.ndarray, np.ndarray]:
    """The square's sides in pixels of the picture, and where to_square puts the picture in it, both for boxes."""
    if square == "stretch":
        return np.array([width, height, width, height], np.float64), np.zeros(4)
    side = max(width, height)
    return np.full(4, side, np.float64), np.array([(side - width) // 2, (side - height) // 2, 0, 0], np.float64)


def _widen(start: float, length: float, margin: float, side: int) -> tuple[int, int]:
    """First pixel, and the first behind the last, along one side of a film."""
    first = min(max(0, round((start - margin * length) * side)), side - 1)
    end = min(side, round((start + (1 + margin) * length) * side))
    # A multiple of four, so that to_square can halve it twice.
    return first, first + max(1, (end - first) // 4 * 4)
