"""JPEG files to pixels, refused where libjpeg warns that pixels are missing or damaged."""

import re

import cv2
import kornia_rs
import numpy as np
from PIL import Image

from etl.contract.images.pixels import BadImage

# Markers (ITU-T T.81, table B.1).
START, END, SCAN, JFIF, ADOBE, COMMENT = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xFE
APPLICATIONS, ALONE = range(0xE0, 0xF0), (0x01, *range(0xD0, 0xD9))
# The marker that ends a scan: within it, a zero or a restart follows 0xFF (section B.1.1.5).
SCAN_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


def decode_jpeg(content: bytes, film: Image.Image, mode: str) -> np.ndarray:
    """The pixels of a JPEG that Pillow has opened as `film`: (height, width) if mode is `L`, with 3 more if it is `RGB`.

    kornia-rs decodes by libjpeg-turbo as Pillow does, to the same pixels and as fast, but raises where libjpeg warns.
    Pillow drops the warnings, and shows as grey what is missing; it decodes CMYK, which kornia-rs does not.
    Raises BadImage for pixels that are missing or damaged, and what Pillow raises.
    """
    if film.mode in ("L", "RGB"):
        for attempt in (lambda: content, lambda: _tidied(content)):
            try:
                return _decode(attempt(), film.mode, mode)
            except Exception:  # kornia-rs raises plain exceptions, without libjpeg's reason
                pass
    image = np.array(film.convert(mode))
    if film.mode in ("L", "RGB"):
        raise BadImage(
            "damaged JPEG: its compressed pixels are corrupt, or fewer or more than its size: fetch the file again, or, "
            "if it looks whole, save it anew"
        )
    return image


def _decode(content: bytes, stored: str, mode: str) -> np.ndarray:
    image = kornia_rs.io.decode_image_jpegturbo(content, "mono" if stored == "L" else "rgb")
    if stored == mode:
        return image[..., 0] if mode == "L" else image
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if mode == "RGB" else np.array(Image.fromarray(image).convert("L"))


def _tidied(content: bytes) -> bytes:
    """The file without what libjpeg warns of and pixels do not need: notes, and stray bytes between its segments."""
    kept, position = [bytes([0xFF, START])], 2
    while (position := content.find(b"\xff", position)) >= 0 and position + 4 <= len(content):
        marker = content[position + 1]
        if marker == END:
            break
        if marker in (0x00, 0xFF, *ALONE):
            position += 1
            continue
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4])
        segment = content[position:end]
        if marker == JFIF and segment[4:9] == b"JFIF\0":
            # Its version, which some writers leave empty.
            segment = segment[:9] + b"\1\1" + segment[11:]
        if marker in (JFIF, ADOBE) or marker not in (*APPLICATIONS, COMMENT):
            kept.append(segment)
        position = end
        if marker == SCAN:
            found = SCAN_END.search(content, position)
            position = found.start() if found else len(content)
            kept.append(content[end:position])
    return b"".join([*kept, bytes([0xFF, END])])
