"""An image file as the model takes it: the ETL's own functions, so that training and serving cannot differ.

Imports neither torch nor pyspark: the service, the command line and Spark's workers all come through here.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from conf.settings import Quality
from etl.contract.images.decode import MAX_SIDE_PX, decode_grey, to_square
from etl.contract.images.quality import adjust_intensity, find_fault
from inference.model.properties import Properties

# Of a file: in colour, of 16 bits, uncompressed, with the longest sides that are read; and a header.
MAX_FILE_BYTES = 6 * MAX_SIDE_PX**2 + 1_000_000


@dataclass(frozen=True)
class Film:
    """One decoded image."""

    pixels: np.ndarray
    """(S, S) uint8 grey, S the model's size"""
    fault: str | None
    """why the ETL would have put the image into quarantine, such as `inverted: ...`; None where it would not"""
    width_px: int
    height_px: int
    shown: np.ndarray | None = None
    """(h, w) uint8 grey for people, in the film's own proportions and grey values; None where not asked for"""


def load_film(content: bytes, properties: Properties, shown_px: int = 0) -> Film:
    """Bytes of a PNG, JPEG, TIFF or DICOM file to the model's input. Raises BadImage with the reason.

    shown_px: longer side of `shown`; 0: it is not made. Raises MemoryError where there is too little.
    """
    try:
        image = decode_grey(content)
        height, width = image.shape
        adjusted = adjust_intensity(image, properties.intensity)
        pixels = to_square(adjusted, properties.size_px, properties.square)
        shown = _scale(image, shown_px) if shown_px else None
        return Film(pixels, find_fault(image, Quality(**properties.quality)), width, height, shown)
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError(str(error)) from error


def _scale(image: np.ndarray, side_px: int) -> np.ndarray:
    height, width = image.shape
    scale = side_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
