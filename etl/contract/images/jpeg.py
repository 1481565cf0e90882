"""JPEG files to pixels, refused where libjpeg warns that pixels are missing or damaged."""

import re
from collections.abc import Iterator

import cv2
import kornia_rs
import numpy as np
from PIL import Image

from etl.contract.images.pixels import BadImage

# Markers (ITU-T T.81, table B.1).
LOSSLESS, LOSSLESS_LS = (0xC3, 0xC7, 0xCB, 0xCF), 0xF7
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), LOSSLESS_LS)
PROGRESSIVE, START, END, SCAN, JFIF, ADOBE, COMMENT = 0xC2, 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xFE
APPLICATIONS, ALONE = range(0xE0, 0xF0), (0x01, *range(0xD0, 0xD9))
# The marker that ends a scan: within it, a zero or a restart follows 0xFF (section B.1.1.5).
SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def decode_jpeg(content: bytes, film: Image.Image, mode: str) -> np.ndarray:
    """The pixels of a JPEG that Pillow has opened as `film`: uint8, (height, width), or with 3 more if mode is `RGB`.

    kornia-rs decodes by libjpeg-turbo as Pillow does, to the same colours and as fast, but raises where libjpeg warns.
    Pillow drops the warnings, and shows as grey what is missing; it decodes CMYK, which kornia-rs does not.
    mode: `L` or `RGB`. Raises BadImage for pixels that are missing or damaged, and what Pillow raises.
    """
    if film.mode not in ("L", "RGB"):
        return np.array(film.convert(mode))
    # libjpeg does not warn of them: a film without its last scans is a coarse one.
    if film.info.get("progressive") and not _has_all_scans(content):
        raise BadImage("truncated JPEG: its last scans are missing")
    try:
        return _decode(content, film.mode, mode)
    except MemoryError:
        raise
    except Exception:  # kornia-rs raises plain exceptions, without libjpeg's reason
        # Pillow has a reason for files that are cut.
        film.load()
    try:
        return _decode(_tidied(content), film.mode, mode)
    except MemoryError:
        raise
    except Exception as error:
        raise BadImage(
            "damaged JPEG: its compressed pixels are corrupt, or fewer or more than its size: fetch the file again, "
            "or, if it looks whole, save it anew"
        ) from error


def unread_kind(content: bytes) -> str:
    """What kind of JPEG the file is, if it is one that is not read; empty: none of them."""
    for marker, segment, _ in _segments(content):
        if marker in FRAMES:
            bits = segment[4] if len(segment) > 4 else 8
            if marker == LOSSLESS_LS:
                return "a JPEG-LS image"
            if marker in LOSSLESS:
                return f"a lossless JPEG of {bits} bits"
            return f"a JPEG of {bits} bits" if bits != 8 else ""
    return ""


def _decode(content: bytes, stored: str, mode: str) -> np.ndarray:
    image = kornia_rs.io.decode_image_jpegturbo(content, "mono" if stored == "L" else "rgb")
    if stored == mode:
        return image[..., 0] if mode == "L" else image
    # As PNG files become grey, too. Pillow's grey is a little slower and, in one colour of 800, off by 1.
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if mode == "RGB" else cv2.COLOR_RGB2GRAY)


def _tidied(content: bytes) -> bytes:
    """The file without what libjpeg warns of and pixels do not need: notes, and stray bytes between its segments."""
    kept = [bytes([0xFF, START])]
    for marker, segment, scan in _segments(content):
        if marker == JFIF and segment[4:9] == b"JFIF\0":
            # Its version, which some writers leave empty.
            segment = segment[:9] + b"\1\1" + segment[11:]
        if marker in (JFIF, ADOBE) or marker not in (*APPLICATIONS, COMMENT):
            kept += [segment, scan]
    return b"".join([*kept, bytes([0xFF, END])])


def _has_all_scans(content: bytes) -> bool:
    """Whether the scans of a progressive JPEG have all bits of all coefficients (ITU-T T.81, sections B.2.3, G.1.1)."""
    lacking = set()
    for marker, segment, _ in _segments(content):
        if marker == PROGRESSIVE:
            lacking = {(component, place) for component in segment[10::3] for place in range(64)}
        if marker == SCAN and not segment[-1] & 15:
            components, first, last = segment[5:-3:2], segment[-3], segment[-2]
            lacking -= {(component, place) for component in components for place in range(first, last + 1)}
    return not lacking


def _segments(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker and bytes of each segment to the end of the image, and the compressed pixels after those of scans."""
    position = 2
    while (position := content.find(b"\xff", position)) >= 0 and position + 4 <= len(content):
        marker = content[position + 1]
        if marker == END:
            return
        if marker in (0x00, 0xFF, *ALONE):
            position += 1
            continue
        start, position = position, position + 2 + int.from_bytes(content[position + 2 : position + 4])
        scan_start = position
        if marker == SCAN:
            found = SCAN_END.search(content, position)
            position = found.start() if found else len(content)
        yield marker, content[start:scan_start], content[scan_start:position]
