"""TIFF files: their tags, those with more than 8 bits a sample, and reasons for those that are not read."""

import io
import re

import cv2
import numpy as np
from PIL import TiffImagePlugin

from etl.contract.images.greys import to_8_bits
from etl.contract.images.orientation import DAMAGE, ORIENTATION_TAG, UPRIGHT
from etl.contract.images.pixels import SEVERAL_FRAMES, BadImage, Stored, check_size

# Classic TIFF and BigTIFF, in both byte orders.
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags, and values of theirs (TIFF 6.0, section 8, and page 80 for the sample format).
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES = 256, 257, 258, 259, 262, 273, 277
STRIP_BYTES, MAX_SAMPLE, PLANAR, COLOURS, FORMAT, XMP = 279, 281, 284, 320, 339, 700
# XMP part 2, section 3.3: as an attribute or as an element.
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
UNCOMPRESSED, JPEGS, SEPARATE_PLANES = 1, (6, 7), 2
# Compressions that cv2 lacks: LZMA and Zstandard.
PILLOW_COMPRESSIONS = (34925, 50000)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
READ = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR)
FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "unsigned"}

Tags = TiffImagePlugin.ImageFileDirectory_v2


def read_tags(content: bytes) -> Tags:
    """The tags of the only image of a TIFF. Raises BadImage if they are damaged, or say what cannot be followed."""
    try:
        tags = Tags(content[: 16 if b"+" in content[2:4] else 8])
        file, first = io.BytesIO(content), tags.next
        file.seek(first)
        tags.load(file)
        check_size(int(tags[WIDTH]), int(tags[LENGTH]))
        photometric = tags.get(PHOTOMETRIC)
        bits, formats = max(_all(tags, BITS)), {FORMATS.get(number) for number in _all(tags, FORMAT)}
        known = photometric is not None or tags.get(COMPRESSION) in JPEGS
    except BadImage:
        raise
    except DAMAGE as error:
        raise BadImage(f"damaged TIFF: {error}") from error
    if tags.next not in (0, first):
        raise BadImage(SEVERAL_FRAMES)
    if not known:
        raise BadImage("TIFF that does not say whether 0 is black or white: save it with PhotometricInterpretation")
    if bits > 16 or formats != {"unsigned"} or photometric not in (None, *READ):
        raise unread(tags)
    return tags


def unread(tags: Tags) -> BadImage:
    """The reason for a TIFF of a kind that is not read."""
    number = max(_all(tags, FORMAT))
    return BadImage(
        f"TIFF of a kind that is not read: {max(_all(tags, BITS))} bits a sample, {FORMATS.get(number, number)}, "
        f"{tags.get(SAMPLES, 1)} samples a pixel, photometric interpretation {tags.get(PHOTOMETRIC)}, compression "
        f"{tags.get(COMPRESSION, UNCOMPRESSED)}. Save it as grey of 8 or 16 bits"
    )


def decode_deep_tiff(content: bytes, tags: Tags) -> Stored | None:
    """Grey, RGB or RGBA of more than 8 bits a sample, as the file stores them; None for other TIFFs.

    Raises BadImage with the reason.
    """
    try:
        bits, samples, photometric = max(_all(tags, BITS)), tags.get(SAMPLES, 1), tags.get(PHOTOMETRIC)
        if bits <= 8 or photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            return None
        if samples not in ((3, 4) if photometric == RGB else (1,)) or tags.get(PLANAR) == SEPARATE_PLANES:
            raise unread(tags)
        orientation = UPRIGHT
        if bits < 16 and _has_words(tags):
            pixels, orientation = _read_words(content, tags), tags.get(ORIENTATION_TAG, UPRIGHT)
        elif bits in (10, 12, 14, 16):
            pixels = _decode(content, tags) >> (16 - bits)
        else:
            raise unread(tags)
        xmp = tags.get(XMP)
        if ORIENTATION_TAG not in tags and isinstance(xmp, bytes) and (said := XMP_ORIENTATION.search(xmp)):
            orientation = int(said[1])
        white = _white(tags, bits)
    except BadImage:
        raise
    except DAMAGE as error:
        raise BadImage(f"damaged TIFF: {error}") from error
    return Stored(pixels, white if white < 65535 else 0, orientation, photometric == WHITE_IS_ZERO, 2**bits - 1)


def finish_8_bits(film: TiffImagePlugin.TiffImageFile, tags: Tags, mode: str) -> np.ndarray:
    """The pixels of a TIFF of up to 8 bits a sample that Pillow has opened, uint8.

    mode: `L` or `RGB`. A palette of 8 bits, where the standard has 16 (page 37), is read as such, and the greys are
    those of the range that the file ends.
    """
    if tags.get(PHOTOMETRIC) == PALETTE and max(_all(tags, COLOURS)) < 256:
        film.load()
        film.putpalette(bytes(_all(tags, COLOURS)), "RGB;L")
    image, white = np.array(film.convert(mode)), _white(tags, 8)
    is_inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    stored = 255 - image if is_inverted else image
    if white == 255 or stored.max() > white or tags.get(PHOTOMETRIC) not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        return image
    greys = to_8_bits(stored, white)
    return 255 - greys if is_inverted else greys


def _white(tags: Tags, bits: int) -> int:
    """The sample that is white. Some writers end their range at the largest sample of the file.

    By the standard (page 37) that is a fact about these pixels only, so it counts where it ends a range of bits.
    """
    largest = max(_all(tags, MAX_SAMPLE, 2**bits - 1))
    return largest if largest in (2**used - 1 for used in range(min(bits, 8) - 2, bits)) else 2**bits - 1


def _decode(content: bytes, tags: Tags) -> np.ndarray:
    """(height, width) or (height, width, 3 or 4) uint16, upright; fewer bits than 16 lie at the top.

    cv2's libtiff reads what Pillow does not (10, 12 and 14 bits, zero as white in both byte orders), and refuses
    files that are cut.
    """
    compression = tags.get(COMPRESSION, UNCOMPRESSED)
    if compression in PILLOW_COMPRESSIONS and _all(tags, BITS) == (16,):
        return np.asarray(TiffImagePlugin.TiffImageFile(io.BytesIO(content)), np.uint16)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise BadImage(f"damaged TIFF, or one whose compression ({compression}) is not read")
    return pixels


def _has_words(tags: Tags) -> bool:
    """Whether samples of fewer bits have 16 each; the standard wants them packed, and libtiff reads them so."""
    words = 2 * tags[LENGTH] * tags[WIDTH] * tags.get(SAMPLES, 1)
    return tags.get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED and sum(_all(tags, STRIP_BYTES)) == words


def _read_words(content: bytes, tags: Tags) -> np.ndarray:
    """(height, width) uint16."""
    if tags.get(SAMPLES, 1) != 1:
        raise unread(tags)
    strips = zip(_all(tags, STRIPS), _all(tags, STRIP_BYTES), strict=True)
    data = b"".join(content[start : start + size] for start, size in strips)
    words = np.frombuffer(data, "<u2" if content.startswith(b"II") else ">u2")
    return words.reshape(tags[LENGTH], tags[WIDTH]).astype(np.uint16)


def _all(tags: Tags, tag: int, default: int = 1) -> tuple:
    """All values of a tag, of which Pillow unpacks some."""
    values = tags.get(tag, default)
    return values if isinstance(values, tuple) else (values,)
