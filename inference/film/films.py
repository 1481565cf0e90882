"""An image file as the model takes it, by the ETL's own functions, so that training and serving cannot differ.

Imports neither torch nor pyspark, because the service, the command line and Spark's workers all use it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from conf.settings import Dicom, Quality
from etl.contract.images.decode import begins_like_image, decode_colour, decode_grey
from etl.contract.images.lungs.crop import KEPT_WHOLE, Crop, crop_film
from etl.contract.images.misfits import find_misfit, tags_of
from etl.contract.images.pixels import MAX_SIDE_PX, BadImage, one_error_for_lack_of_memory, to_square
from etl.contract.images.quality import adjust_intensity, find_fault
from inference.film.stated import Stated, stated_in
from inference.model.properties import Properties

if TYPE_CHECKING:
    from etl.contract.images.dicom.tags import Tags

# The largest file that can be an image: 16-bit colour, uncompressed, both sides as long as they may be, and a header.
MAX_FILE_BYTES = 6 * MAX_SIDE_PX**2 + 1_000_000
MAX_REASON_CHARACTERS = 500
OUT_OF_REACH = "cannot be read"
"""how a reason begins if nobody has seen the image, so that a later try may succeed"""
DECODER_DIED = "cannot be decoded: the decoder process died, possibly out of memory"


@dataclass(frozen=True)
class Film:
    """One decoded image."""

    pixels: np.ndarray
    """(S, S) grey or (S, S, 3) RGB, uint8, S the model's size"""
    fault: str | None
    """why the ETL would have put the image into quarantine, such as `inverted: ...`; None if it would not"""
    width_px: int
    height_px: int
    shown: np.ndarray | None = None
    """(h, w) grey or (h, w, 3) RGB, uint8, in the film's own proportions and greys, for people; None: not asked for"""
    stated: Stated | None = None
    """what the file states of age, sex and view; None if the model takes pixels alone"""
    crop: Crop | None = None
    """the part of the film that `pixels` show; None: all of it"""
    whole: np.ndarray | None = None
    """the whole film as a square like `pixels`, for people; None if `pixels` show all of it, or if not asked for"""
    doubts: tuple[str, ...] = ()
    """what speaks against the pixels"""


@dataclass(frozen=True)
class NoFilm:
    """Why a file gives no film."""

    reason: str
    """for people, of at most MAX_REASON_CHARACTERS; begins with OUT_OF_REACH if another try may succeed"""
    is_image: bool = True
    """False if the file does not even begin like an image of a kind that is read"""
    bug: Exception | None = None
    """what a decoder raised beyond its known ways to refuse a file; `reason` quotes it, and it may quote the file"""


NO_MEMORY = NoFilm(f"{OUT_OF_REACH}: not enough memory to decode it")


def read_film(
    read: Callable[[int], bytes], properties: Properties, shown_px: int = 0, with_whole: bool = False
) -> Film | NoFilm:
    """A file to its film, or the reason why it has none, in the same words for command line, batch and service.

    read: gives the file's bytes, at most as many as its argument; may raise OSError. shown_px, with_whole: as for
    load_film.
    """
    try:
        content = read(MAX_FILE_BYTES + 1)
    except MemoryError:
        return NO_MEMORY
    except OSError as error:
        return NoFilm(f"{OUT_OF_REACH}: {error.strerror or error}"[:MAX_REASON_CHARACTERS])
    if len(content) > MAX_FILE_BYTES:
        return NoFilm(f"too large: over {MAX_FILE_BYTES // 10**6} MB, more than any image that is read")
    try:
        return load_film(content, properties, shown_px, with_whole)
    except BadImage as error:
        return NoFilm(str(error)[:MAX_REASON_CHARACTERS], begins_like_image(content))
    except MemoryError:
        return NO_MEMORY
    except Exception as error:
        reason = f"cannot be decoded: {type(error).__name__}: {error}"
        return NoFilm(reason[:MAX_REASON_CHARACTERS], bug=error)


def load_film(content: bytes, properties: Properties, shown_px: int = 0, with_whole: bool = False) -> Film:
    """Bytes of an image file to the model's input. As in the ETL, a model of grey images gets the luminance of a colour
    file, and one of colour images equal channels of a grey file.

    shown_px: longer side of `shown`; 0: `shown` is not made. with_whole: whether Film.whole is made of a cropped film.
    Raises BadImage with the reason if the file is no usable image, MemoryError if there is too little memory.
    """
    with one_error_for_lack_of_memory():
        image = (decode_grey if properties.channels == 1 else decode_colour)(content, properties.grey_bits)
        height, width = image.shape[:2]
        kept, crop = crop_film(image, properties.crop, properties.crop_margin, properties.finds_lungs_by)
        pixels, whole = _square(kept, properties, crop), _square(image, properties) if crop and with_whole else None
        doubts = (KEPT_WHOLE,) if properties.crop != "none" and crop is None else ()
        shown = _scale(image, shown_px) if shown_px else None
        tags, fault = _ask_tags(content, properties)
        if not fault and properties.channels == 1:
            fault = find_fault(image, Quality(**properties.quality))
        stated = stated_in(tags) if properties.attributes else None
        return Film(pixels, fault, width, height, shown, stated, crop, whole, doubts)


def _square(film: np.ndarray, properties: Properties, crop: Crop | None = None) -> np.ndarray:
    adjusted = adjust_intensity(film, properties.intensity)
    return to_square(adjusted, properties.size_px, properties.square, quick=crop is not None)


def _ask_tags(content: bytes, properties: Properties) -> tuple["Tags | None", str | None]:
    """The tags of a DICOM file, and why it is no film for reading; both None for other files."""
    try:
        tags = tags_of(content)
        return tags, find_misfit(tags, Dicom(**properties.dicom)) if tags else None
    except BadImage as reason:
        return None, str(reason)


def _scale(image: np.ndarray, side_px: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
