"""The mask of one film, checked and brought to the film's stored squares."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from conf.settings import Etl
from etl.contract.images.decode import decode_grey
from etl.contract.images.lungs.crop import Crop
from etl.contract.images.pixels import BadImage, to_square

MAX_STRETCH = 0.01
"""by which the proportions of mask and film may differ: masks are often drawn on smaller copies, whose sides are
rounded"""


def load_masks(
    reads: Iterable[Callable[[], bytes]], width: int, height: int, crop: Crop | None, settings: Etl
) -> list[np.ndarray]:
    """The film's mask at each of settings.sizes_px, (S, S) uint8, 255 lung, 0 elsewhere, cropped and squared like it.

    reads: each returns the content of one file. A pixel that is white in any of the files is lung. width, height: of
    the upright film.
    Raises BadImage with the reason why there is no mask.
    """
    drawn = [_read(read, width, height) for read in reads]
    if not drawn:
        raise BadImage("no mask file")
    mask = np.maximum.reduce(drawn)
    if not mask.any():
        raise BadImage("empty mask")
    if crop:
        mask = crop.of(mask)
    squares = (to_square(mask, size, settings.square, quick=crop is not None) for size in settings.sizes_px)
    return [np.where(square > 127, np.uint8(255), np.uint8(0)) for square in squares]


def _read(read: Callable[[], bytes], width: int, height: int) -> np.ndarray:
    """The lung of one file, (height, width) uint8, 255 or 0."""
    try:
        drawn = decode_grey(read())
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from error
    except BadImage as error:
        raise BadImage(f"damaged mask: {error}") from error
    rows, columns = drawn.shape
    if abs(columns * height / (rows * width) - 1) > MAX_STRETCH:
        raise BadImage(f"mask of other proportions: {columns}x{rows} pixels, the film has {width}x{height}")
    # Some files have 0 and 1, others 0 and 255.
    lung = np.where(drawn > drawn.max() // 2, np.uint8(255), np.uint8(0))
    return lung if lung.shape == (height, width) else cv2.resize(lung, (width, height), interpolation=cv2.INTER_NEAREST)
