"""An image file as the model takes it: the ETL's own functions, so that training and serving cannot differ.

Imports neither torch nor pyspark: the service, the command line and Spark's workers all come through here.
"""

from dataclasses import dataclass

import numpy as np

from conf.settings import Quality
from etl.images import decode_grey, to_square
from etl.quality import adjust_intensity, find_fault
from inference.properties import Properties


@dataclass(frozen=True)
class Film:
    """One decoded image."""

    pixels: np.ndarray
    """(S, S) uint8 grey, S the model's size"""
    fault: str | None
    """why the ETL would have put the image into quarantine, such as `inverted: ...`; None where it would not"""
    width_px: int
    height_px: int


def load_film(content: bytes, properties: Properties) -> Film:
    """Bytes of a PNG, JPEG, TIFF or DICOM file to the model's input. Raises BadImage with the reason."""
    image = decode_grey(content)
    height, width = image.shape
    adjusted = adjust_intensity(image, properties.intensity)
    pixels = to_square(adjusted, properties.size_px, properties.square)
    return Film(pixels, find_fault(image, Quality()), width, height)
