"""Common to all image formats: the accepted sizes, the error for unusable images, what a file stores, squares."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

# The sides of a radiograph have at most some 5,000 pixels. Far longer ones are damaged files or decompression bombs.
# The limit is on the longer side, because the padded square has that side.
MAX_SIDE_PX = 10_000
SEVERAL_FRAMES = "several frames, expected one: save the one that you want as a file of its own"

# cv2 would start a thread per core in each of Spark's workers, and print what is in the reasons already.
cv2.setNumThreads(1)
cv2.setLogLevel(0)


class BadImage(ValueError):
    """These bytes are no usable image. The message is the reason that the quarantine table shows."""


@dataclass(frozen=True)
class Stored:
    """The pixels that a file stores, and what it says of how they are to be shown."""

    pixels: np.ndarray
    """(height, width) grey, or (height, width, 3 or 4) BGR or BGRA; uint8 or uint16"""
    white: int = 0
    """white by the bits that the file calls significant, below that of the pixels' type; 0: the file says nothing"""
    orientation: int = 1
    """1 to 8 as in EXIF, see orientation.py"""
    white_is_zero: bool = False
    full: int = 65535
    """the largest value that pixels of uint16 can have in the file"""


@contextmanager
def one_error_for_lack_of_memory() -> Iterator[None]:
    """Raises MemoryError for what libraries raise in its place: cv2 an error of its own, those in Rust a panic."""
    try:
        yield
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError(str(error)) from error
    except BaseException as error:
        # A panic is no Exception, and has no class that could be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise MemoryError(str(error)) from error


def check_size(width: int, height: int) -> None:
    """Raises BadImage for an image without pixels, or with a side above MAX_SIDE_PX."""
    if width * height == 0:
        raise BadImage(f"no pixels: {width}x{height}")
    if max(width, height) > MAX_SIDE_PX:
        raise BadImage(f"too large: {width}x{height} pixels, limit {MAX_SIDE_PX} a side")


def to_square(image: np.ndarray, size_px: int, square: str = "pad", quick: bool = False) -> np.ndarray:
    """(height, width) or (height, width, 3) uint8 to (size_px, size_px) or (size_px, size_px, 3) uint8.

    square: `pad` with black, which keeps the heart-to-thorax ratio, or `stretch`, which changes it but uses all pixels.
    A side that is too long is area-averaged, one that is too short enlarged linearly. quick: averaged by _halved, for
    crops: their sides are no multiples of size_px, for which OpenCV takes several times as long.
    Raises ValueError for another `square`.
    """
    height, width = image.shape[:2]
    if square == "pad":
        side = max(height, width)
        if height != width:
            top, left = (side - height) // 2, (side - width) // 2
            image = cv2.copyMakeBorder(
                image, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=0
            )
        height, width = side, side
    elif square != "stretch":
        raise ValueError(f"square is {square!r}, expected pad or stretch")
    if quick:
        return _halved(image, size_px)
    if max(height, width) > size_px:
        # In a step of its own, because OpenCV averages areas only if neither side is enlarged.
        image = cv2.resize(image, (min(width, size_px), min(height, size_px)), interpolation=cv2.INTER_AREA)
    if min(height, width) < size_px:
        image = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    return image


def _halved(image: np.ndarray, size_px: int) -> np.ndarray:
    """The image with both sides of size_px, reduced by averages over 2x2 pixels.

    Before the last of them, a side is enlarged linearly, by a factor of less than 2, to a multiple of size_px.
    """
    while max(sides := _sides(image)) >= 2 * size_px and all(side % 2 == 0 or side < 2 * size_px for side in sides):
        image = _halve(image, size_px)
    doubled = tuple(size_px * 2 ** max(0, math.ceil(math.log2(side / size_px))) for side in _sides(image))
    if doubled != _sides(image):
        image = cv2.resize(image, doubled, interpolation=cv2.INTER_LINEAR)
    while max(_sides(image)) > size_px:
        image = _halve(image, size_px)
    return image


def _halve(image: np.ndarray, size_px: int) -> np.ndarray:
    """The image with each side halved that is at least twice size_px."""
    halved = tuple(side // 2 if side >= 2 * size_px else side for side in _sides(image))
    return cv2.resize(image, halved, interpolation=cv2.INTER_AREA)


def _sides(image: np.ndarray) -> tuple[int, int]:
    height, width = image.shape[:2]
    return width, height
