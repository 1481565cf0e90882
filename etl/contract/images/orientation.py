"""Turns films upright, as their files say: by EXIF's orientation, or by DICOM's Patient Orientation."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

ORIENTATION_TAG = 274
"""TIFF 6.0, page 36, and EXIF 2.32, section 4.6.4; 1 is upright, 2 to 8 are the other ways to lay down an image"""
UPRIGHT = 1
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What Pillow raises on damaged EXIF, TIFF or XMP.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, struct.error)
# XMP part 1, section 7: as an attribute in either quotes, or as an element.
XMP_ORIENTATION = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|>)\s*([1-8])\b""")
# How XMP begins in the profile of a JPEG (XMP part 3, section 1.1.3).
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
# Texts of a PNG that hold a profile in hexadecimal digits, as ImageMagick writes it.
RAW_PROFILES = ("Raw profile type exif", "Raw profile type APP1", "Raw profile type xmp")
# First letters of the directions in which rows and columns run (DICOM PS3.3, C.7.6.1.1.1): left, right, head, feet,
# anterior, posterior. A frontal film is upright if its rows run to the patient's left, its columns to the feet.
# The side to which a lateral film faces is no convention: it stays, and a film that lies on its side is only turned.
PATIENT_ORIENTATIONS = {"LF": 1, "RF": 2, "RH": 3, "LH": 4, "FL": 5, "FR": 6, "HR": 7, "HL": 8}
PATIENT_ORIENTATIONS |= {"AF": 1, "PF": 1, "AH": 4, "PH": 4, "FA": 6, "FP": 6, "HA": 8, "HP": 8}


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """(height, width) or (height, width, channels), laid down as `orientation` says (1 to 8), as it is to be shown."""
    if orientation == UPRIGHT:
        return image
    if orientation in (5, 7):
        image = image.swapaxes(0, 1)
    # Quarters of a turn, anticlockwise, after the mirroring by swapped axes above.
    image = np.rot90(image, {3: 2, 4: 2, 6: 3, 7: 2, 8: 1}.get(orientation, 0))
    return np.ascontiguousarray(image[:, ::-1] if orientation in (2, 4) else image)


def exif_orientation(film: Image.Image) -> int:
    """1 to 8 by the EXIF, else the XMP, of an opened image; 1 if it has none or none that can be read."""
    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = film.getexif().get(ORIENTATION_TAG)
    except DAMAGE:
        # Viewers show such a film as it lies.
        return UPRIGHT
    if orientation is None:
        return xmp_orientation(film.info.get("xmp") or film.info.get("XML:com.adobe.xmp"))
    return orientation if orientation in range(1, 9) else UPRIGHT


def xmp_orientation(xmp: bytes | str | None) -> int:
    """1 to 8 by the XMP of an image; 1 if it says nothing of it."""
    said = XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else xmp or b"")
    return int(said[1]) if said else UPRIGHT


def png_orientation(metadata: list[bytes]) -> int:
    """1 to 8 by the whole chunks of a PNG that hold EXIF or XMP; otherwise like exif_orientation."""
    if not metadata:
        return UPRIGHT
    # Pillow reads the chunks from a PNG of one pixel.
    header, pixel = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), zlib.compress(bytes(2))
    chunks = [png_chunk(b"IHDR", header), *metadata, png_chunk(b"IDAT", pixel), png_chunk(b"IEND", b"")]
    try:
        film = PngImagePlugin.PngImageFile(io.BytesIO(PNG_SIGNATURE + b"".join(chunks)))
        film.load()
        for name in RAW_PROFILES:
            # A blank line, the name of the profile and its length precede the digits.
            profile = bytes.fromhex("".join(str(film.info.pop(name, "")).split("\n")[3:]))
            is_xmp = profile.startswith(XMP_HEAD) or name.endswith("xmp")
            if profile:
                film.info.setdefault("xmp" if is_xmp else "exif", profile)
        return exif_orientation(film)
    except DAMAGE:
        return UPRIGHT


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file, with its length and its checksum (PNG 1.2, section 3.2)."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def patient_orientation(directions: list[str]) -> int:
    """1 to 8 by the two directions of Patient Orientation; 1 if they are not two, or contradict each other.

    The first letter of a direction counts: the others refine it.
    """
    letters = "".join(str(direction).strip()[:1].upper() for direction in directions)
    return PATIENT_ORIENTATIONS.get(letters, UPRIGHT) if len(directions) == 2 else UPRIGHT
