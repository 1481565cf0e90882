"""TIFF files of more than 8 bits a sample to pixels, and what Pillow leaves open in those of 8 bits."""

import io
import math
import re
import struct

import cv2
import numpy as np
from PIL import TiffImagePlugin

from etl.contract.images.greys import to_8_bits
from etl.contract.images.orientation import DAMAGE, ORIENTATION_TAG, UPRIGHT, xmp_orientation
from etl.contract.images.pixels import BadImage, Stored
from etl.contract.images.tiff.tags import (
    BITS,
    BLACK_IS_ZERO,
    COLOURS,
    COMPRESSION,
    DESCRIPTION,
    FILL_ORDER,
    MAX_SAMPLE,
    PALETTE,
    PHOTOMETRIC,
    PLANAR,
    RGB,
    SAMPLES,
    SEPARATE_PLANES,
    UNCOMPRESSED,
    WHITE_IS_ZERO,
    XMP,
    Tags,
    all_of,
    chunk_places,
    chunk_size,
    unread,
    with_tag,
)

# Compressions that cv2 lacks: LZMA and Zstandard.
PILLOW_COMPRESSIONS = (34925, 50000)
# ImageJ adds this to signed pixels of 16 bits, and says so by a calibration: a straight line, its offset, its slope.
SHIFT, IMAGEJ_SHIFT = 32768, (0, -32768, 1)
# Compressions of plain bytes that cv2 has: LZW, two numbers of deflate, and PackBits.
OF_BYTES = (5, 8, 32946, 32773)


def decode_deep_tiff(content: bytes, tags: Tags) -> Stored | None:
    """Grey, RGB or RGBA of more than 8 bits a sample, as the file stores them; None for other TIFFs.

    Raises BadImage with the reason.
    """
    try:
        bits, samples, photometric = max(all_of(tags, BITS)), tags.get(SAMPLES, 1), tags.get(PHOTOMETRIC)
        is_wide = _is_wide(content, tags, bits)
        if bits < 8 and is_wide:
            raise unread(tags, f"its samples of {bits} bits are not packed, but have 8 each")
        if bits <= 8 or photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            return None
        if tags.get(PLANAR) == SEPARATE_PLANES and samples > 1:
            raise unread(tags, "its samples lie in separate planes (PlanarConfiguration 2)")
        if samples not in ((3, 4) if photometric == RGB else (1,)):
            raise unread(tags, "of more than 8 bits, grey without alpha, RGB and RGBA are read")
        if is_wide:
            pixels = _decode(with_tag(content, BITS, 16), tags)
        elif bits in (10, 12, 14, 16):
            pixels = _decode(content, tags) >> (16 - bits)
        else:
            raise unread(tags, f"its samples of {bits} bits are packed")
        orientation = UPRIGHT if ORIENTATION_TAG in tags else xmp_orientation(tags.get(XMP))
        white = _white(tags, bits)
        calibration = _calibration(tags)
        if calibration[:3] == IMAGEJ_SHIFT and pixels.min() >= SHIFT:
            pixels -= SHIFT
            # ImageJ's display range, where it is a range of bits; else whether the 15 bits of positive pixels are used.
            low, high = calibration[3:]
            white = int(high) if low == 0 and high in (2**used - 1 for used in range(8, 15)) else 0
            full = SHIFT - 1 if pixels.max() >= SHIFT // 2 else 65535
            return Stored(pixels, white, orientation, photometric == WHITE_IS_ZERO, full)
        # Words may be larger than the tag says.
        full = 65535 if bits == 16 or pixels.max() >= 2**bits else 2**bits - 1
    except BadImage:
        raise
    except DAMAGE as error:
        raise BadImage(f"damaged TIFF: {error}") from error
    return Stored(pixels, white if white < 65535 else 0, orientation, photometric == WHITE_IS_ZERO, full)


def _calibration(tags: Tags) -> tuple[float, ...]:
    """Function, offset and slope of ImageJ's calibration, and the range that it displays; NaN: not said.

    ImageJ writes them as lines of the description (ij.io.FileSaver.getDescriptionString).
    """
    text = str(tags.get(DESCRIPTION, ""))
    if not text.startswith("ImageJ="):
        return ()
    said = dict(re.findall(r"^(cf|c0|c1|min|max)=(-?[\d.]+)\s*$", text, re.MULTILINE))
    return float(said.get("cf", 0)), *(float(said.get(key, "nan")) for key in ("c0", "c1", "min", "max"))


def finish_8_bits(film: TiffImagePlugin.TiffImageFile, tags: Tags, mode: str) -> np.ndarray:
    """The pixels of a TIFF of up to 8 bits a sample that Pillow has opened, uint8.

    mode: `L` or `RGB`. A palette of 8 bits, where the standard has 16 (page 37), is read as such, and the greys are
    those of the range that the file ends.
    """
    if tags.get(PHOTOMETRIC) == PALETTE and max(all_of(tags, COLOURS)) < 256:
        film.load()
        film.putpalette(bytes(all_of(tags, COLOURS)), "RGB;L")
    # Grey that was multiplied with its alpha, which Pillow turns into nothing but grey and alpha.
    opened = film.convert("LA") if film.mode == "La" else film
    image, white = np.array(opened.convert(mode)), _white(tags, 8)
    if white == 255 or tags.get(PHOTOMETRIC) not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        return image
    is_inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    if is_inverted and 255 - image.min() <= white:
        return 255 - to_8_bits(255 - image, white)
    return to_8_bits(image, white) if image.max() <= white else image


def _white(tags: Tags, bits: int) -> int:
    """The sample that is white. Some writers end their range at the largest sample of the file.

    By the standard (page 37) that is a fact about these pixels only, so it counts where it ends a range of bits.
    """
    largest = max(all_of(tags, MAX_SAMPLE, 2**bits - 1))
    return largest if largest in (2**used - 1 for used in range(min(bits, 8) - 2, bits)) else 2**bits - 1


def _decode(content: bytes, tags: Tags) -> np.ndarray:
    """(height, width) or (height, width, 3 or 4) uint16, upright; fewer bits than 16 lie at the top.

    cv2's libtiff reads what Pillow does not (10, 12 and 14 bits, zero as white in both byte orders), and refuses
    files that are cut.
    """
    compression = tags.get(COMPRESSION, UNCOMPRESSED)
    if compression in PILLOW_COMPRESSIONS and all_of(tags, BITS) == (16,):
        return np.asarray(TiffImagePlugin.TiffImageFile(io.BytesIO(content)), np.uint16)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise BadImage(f"damaged TIFF, or one whose compression ({compression}) is not read")
    return pixels


def _is_wide(content: bytes, tags: Tags, bits: int) -> bool:
    """Whether samples of 9 to 15 bits have 16 each, or those of fewer than 8 have 8, by the bytes of the first chunk.

    The standard wants them packed, and libtiff, which is not told, reads the first bytes of each strip or tile so.
    Raises BadImage if they are neither.
    """
    compression = tags.get(COMPRESSION, UNCOMPRESSED)
    if bits in (8, 16) or compression not in (UNCOMPRESSED, *OF_BYTES):
        return False
    columns, rows, samples = chunk_size(tags)
    packed, wide = math.ceil(columns * samples * bits / 8), columns * samples * (1 if bits < 8 else 2)
    # A row of a pixel or two is as long either way.
    if wide // 2 * 2 <= packed:
        return False
    (start, *_), sizes = chunk_places(tags)
    data = content[start : start + sizes[0]] if sizes else content[start:]
    if not sizes:
        if bits < 8 or len(data) < rows * wide:
            return False
        raise unread(
            tags, f"without right StripByteCounts, its samples of {bits} bits may be packed or have 16 bits each"
        )
    if compression == UNCOMPRESSED:
        # Packed rows may be padded, to an even length say.
        if bits < 8 or len(data) <= rows * (packed + 2) or len(data) == rows * wide:
            return len(data) == rows * wide
        if len(data) > rows * wide or sizes[0] == rows * wide or _may_be_words(data[: rows * packed], tags, bits):
            raise unread(
                tags,
                f"its first strip or tile has {len(data)} bytes for {rows} rows; packed samples have "
                f"{rows * packed}, and samples of 16 bits each {rows * wide}",
            )
        return False
    order = tags.get(FILL_ORDER, 1)
    if not _holds(data, compression, order, min(packed + 2, wide), rows):
        return False
    if not _holds(data, compression, order, wide, rows):
        raise unread(
            tags,
            f"its first strip or tile has more bytes than packed samples of {bits} bits, and fewer than samples of "
            f"{8 if bits < 8 else 16} bits each, or it is damaged",
        )
    return True


def _may_be_words(data: bytes, tags: Tags, bits: int) -> bool:
    """Whether these bytes, as words of 16 bits, have all those bits clear that samples of `bits` leave unused."""
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if tags.prefix.startswith(b"II") else ">u2")
    unused = 16 - bits
    return not (words >> bits).any() or not (words & (2**unused - 1)).any()


def _holds(data: bytes, compression: int, fill_order: int, row_bytes: int, rows: int) -> bool:
    """Whether these compressed data are at least so many rows of bytes, of an even number, by libtiff's word."""
    # In samples of 16 bits, of which cv2 misses none; of 8 bits it does.
    tags = {256: row_bytes // 2, 257: rows, 258: 16, 259: compression, 262: 1, FILL_ORDER: fill_order}
    tags |= {273: 8 + 2 + 12 * 10 + 4, 277: 1, 278: rows, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data
    return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED) is not None
