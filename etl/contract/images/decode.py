"""The bytes of an image file to grey or colour pixels: the same functions for the table and for every served image."""

import io
import warnings
from collections.abc import Callable

import cv2
import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, TiffImagePlugin, WebPImagePlugin

from etl.contract.images.greys import greys_of, to_8_bits
from etl.contract.images.jpeg import decode_jpeg, unread_kind
from etl.contract.images.kinds import describe_other, kind_of
from etl.contract.images.orientation import DAMAGE, ORIENTATION_TAG, exif_orientation, turn
from etl.contract.images.pixels import MAX_SIDE_PX, SEVERAL_FRAMES, BadImage, Stored, check_size
from etl.contract.images.png import decode_png
from etl.contract.images.tiff.decode import decode_deep_tiff, finish_8_bits
from etl.contract.images.tiff.tags import Tags, read_tags, unread

# Pillow's readers, asked directly: its own search for one hides the reason why none can read a file.
READERS: dict[str, Callable[..., ImageFile.ImageFile]] = {
    # Some phones save several pictures in one file (MPO). This reader returns the first, which is the main one (CIPA
    # DC-007, section 5.1).
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
# By the number of channels.
TO_GREY = {3: cv2.COLOR_BGR2GRAY}
TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB}


def decode_grey(content: bytes, grey_bits: int = 0) -> np.ndarray:
    """Bytes of an image file of the kinds in kinds.py to (height, width) uint8 grey, turned as the file says.

    Colour becomes luminance (ITU-R BT.601), alpha is dropped, 16 bits are scaled to 8, see greys.py.
    grey_bits: etl.grey_bits. Raises BadImage for anything that is not one whole image of these kinds.
    """
    return _decode(content, False, grey_bits)


def decode_colour(content: bytes, grey_bits: int = 0) -> np.ndarray:
    """Bytes of an image file to (height, width, 3) uint8 RGB; otherwise like decode_grey."""
    return _decode(content, True, grey_bits)


def begins_like_image(content: bytes) -> bool:
    """Whether the file, or its first kilobyte, begins like a kind that decode_grey reads, however damaged it is."""
    return bool(kind_of(content))


def _decode(content: bytes, colour: bool, grey_bits: int) -> np.ndarray:
    kind = kind_of(content)
    if kind == "DICOM":
        # Imported here, because pydicom takes long to import and few processes need it.
        from etl.contract.images.dicom.decode import decode_dicom

        image = decode_dicom(content, colour)
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if colour and image.ndim == 2 else image
    if kind == "PNG":
        return _render(decode_png(content), colour, grey_bits)
    if not kind:
        raise BadImage(describe_other(content))
    # Pillow warns of tags that do not matter here.
    with warnings.catch_warnings(action="ignore"):
        tags = None
        if kind == "TIFF":
            content, tags = read_tags(content)
        stored = decode_deep_tiff(content, tags) if tags else None
        return _render(stored, colour, grey_bits) if stored else _decode_by_pillow(content, kind, colour, tags)


def _render(stored: Stored, colour: bool, grey_bits: int) -> np.ndarray:
    image, white = greys_of(stored, grey_bits)
    channels = image.shape[2] if image.ndim == 3 else 1
    if colour or channels > 1:
        image = cv2.cvtColor(image, (TO_RGB if colour else TO_GREY)[channels])
    return turn(to_8_bits(image, white), stored.orientation)


def _decode_by_pillow(content: bytes, kind: str, colour: bool, tags: Tags | None) -> np.ndarray:
    """An image of 8 bits by Pillow, which refuses truncated files; cv2 would fill them with grey."""
    try:
        with READERS[kind](io.BytesIO(content), "") as film:
            # The number of frames is not asked for: a hostile file would have millions counted.
            if getattr(film, "is_animated", False):
                raise BadImage(SEVERAL_FRAMES)
            check_size(*film.size)
            mode = "RGB" if colour else "L"
            if kind == "JPEG":
                image = decode_jpeg(content, film, mode)
            else:
                image = finish_8_bits(film, tags, mode) if tags else np.array(film.convert(mode))
            # By the tag of a TIFF, Pillow has turned it.
            return image if tags and ORIENTATION_TAG in tags else turn(image, exif_orientation(film))
    except BadImage:
        raise
    # Pillow raises it before the size can be checked above.
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: more than {MAX_SIDE_PX} pixels a side") from error
    except DAMAGE as error:
        # So Pillow refuses a file before its pixels.
        if not isinstance(error, SyntaxError):
            raise BadImage(_reason(content, kind, error)) from error
        raise (
            unread(tags, "its pixels are none that Pillow reads") if tags else BadImage(_reason(content, kind, error))
        ) from error


def _reason(content: bytes, kind: str, error: Exception) -> str:
    """Why Pillow cannot read a file of this kind."""
    if kind == "JPEG" and (name := unread_kind(content)):
        return f"{name} is not read: save it as PNG of 8 or 16 bits"
    # RIFF: the size in its head leaves out eight bytes (WebP container specification, "WebP file header").
    if kind == "WEBP" and (size := 8 + int.from_bytes(content[4:8], "little")) > len(content):
        return f"truncated WEBP: {len(content)} of {size} bytes"
    return (
        f"{kind} that is damaged or not read: {error}" if isinstance(error, SyntaxError) else f"damaged {kind}: {error}"
    )
