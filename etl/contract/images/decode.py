"""The bytes of an image file to grey or colour pixels: the same functions for the table and for every served image."""

import io
import struct
import warnings

import cv2
import numpy as np
from PIL import Image

from etl.contract.images.pixels import MAX_SIDE_PX, SEVERAL_FRAMES, BadImage, check_size, to_8_bits
from etl.contract.images.png import PNG_SIGNATURE, decode_png

JPEG_SIGNATURE = b"\xff\xd8\xff"
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*")


def decode_grey(content: bytes) -> np.ndarray:
    """Bytes of a PNG, JPEG, TIFF or DICOM file to (height, width) uint8 grey.

    Colour becomes luminance (ITU-R BT.601), alpha is dropped, 16 bits are scaled to 8 over their full range.
    Raises BadImage for anything that is not one whole image of these formats.
    """
    # A DICOM file may begin like a TIFF, for programs that read only TIFF.
    is_dicom = content[128:132] == b"DICM"
    if content.startswith((JPEG_SIGNATURE, *TIFF_SIGNATURES)) and not is_dicom:
        return _decode_other(content, "L")
    if content and not content.startswith(PNG_SIGNATURE):
        # Imported here, because pydicom takes long to import and few processes need it.
        from etl.contract.images.dicom import decode_dicom
        from etl.contract.images.dicom_file import looks_like_dicom

        if looks_like_dicom(content):
            return decode_dicom(content)
    image = decode_png(content)
    if image.ndim == 3:
        code = cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY
        image = cv2.cvtColor(image, code)
    return to_8_bits(image)


def begins_like_image(content: bytes) -> bool:
    """Whether the file, or its first kilobyte, begins like a kind that decode_grey reads, however damaged it is."""
    if content.startswith((PNG_SIGNATURE, JPEG_SIGNATURE, *TIFF_SIGNATURES)):
        return True
    # Imported here, because pydicom takes long to import and few processes need it.
    from etl.contract.images.dicom_file import looks_like_dicom

    return looks_like_dicom(content)


def decode_colour(content: bytes) -> np.ndarray:
    """Bytes of a PNG, JPEG or TIFF to (height, width, 3) uint8 RGB; otherwise like decode_grey."""
    if content.startswith((JPEG_SIGNATURE, *TIFF_SIGNATURES)):
        return _decode_other(content, "RGB")
    image = decode_png(content)
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return to_8_bits(cv2.cvtColor(image, codes[image.shape[2] if image.ndim == 3 else 1]))


def _decode_other(content: bytes, mode: str) -> np.ndarray:
    """JPEG or TIFF in the mode L or RGB by Pillow, which refuses truncated files; cv2 would fill them with grey."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=("JPEG", "TIFF")) as film,
        ):
            # The number of frames is not asked for: a hostile TIFF would have millions counted.
            if getattr(film, "is_animated", False):
                raise BadImage(SEVERAL_FRAMES)
            check_size(*film.size)
            if film.mode.startswith("I;16"):
                grey = to_8_bits(np.asarray(film, np.uint16))
                return grey if mode == "L" else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
            if film.mode in ("I", "F"):
                raise BadImage(f"pixels of 32 bits (mode {film.mode}), expected 8 or 16")
            return np.array(film.convert(mode))
    except BadImage:
        raise
    # Pillow raises it before the size can be checked above.
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: more than {MAX_SIDE_PX} pixels a side") from error
    # Pillow's decoders raise many kinds of errors on damaged files.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        raise BadImage(f"damaged JPEG or TIFF: {error}") from error
