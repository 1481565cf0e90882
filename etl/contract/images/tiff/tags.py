"""The tags of a TIFF file, checked against its size, and reasons for files that are not read."""

import bisect
import io
import math
import struct
from collections.abc import Sequence

from PIL import TiffImagePlugin

from etl.contract.images.orientation import DAMAGE
from etl.contract.images.pixels import BadImage, check_size
from etl.contract.images.tiff.pages import as_classic

# Classic TIFF and BigTIFF, in both byte orders.
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags, and values of theirs (TIFF 6.0, section 8; sections 15 for tiles, 19 for the sample format, 21 for YCbCr).
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, MAX_SAMPLE = 256, 257, 258, 259, 262, 266, 277, 281
STRIPS, STRIP_LENGTH, STRIP_BYTES, PLANAR, COLOURS = 273, 278, 279, 284, 320
TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES, FORMAT, SUBSAMPLING, XMP = 322, 323, 324, 325, 339, 530, 700
DESCRIPTION = 270
UNCOMPRESSED, OLD_JPEG, JPEGS, SEPARATE_PLANES = 1, 6, (6, 7), 2
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
READ = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR)
UNSIGNED, UNDEFINED = 1, 4
FORMATS = {UNSIGNED: "unsigned", 2: "signed", 3: "floating-point", 5: "complex integers", 6: "complex"}
# Types of whole numbers: SHORT and LONG (section 2), as struct has them.
WHOLE_NUMBERS = {3: "H", 4: "I"}
NAMES = {WIDTH: "ImageWidth", LENGTH: "ImageLength"}

Tags = TiffImagePlugin.ImageFileDirectory_v2


def read_tags(content: bytes) -> tuple[bytes, Tags]:
    """The tags of the only image of a TIFF, and the file as a classic TIFF, in which a sample format of 4 is 1.

    Of strips and tiles, both list those that the size needs, with their sizes unless these are too small.

    Raises BadImage if they are damaged, do not fit the size, or say what cannot be followed.
    """
    try:
        content = as_classic(content)
        tags = Tags(content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        check_size(int(tags[WIDTH]), int(tags[LENGTH]))
        # Undefined data (4) are to be read as if the tag were missing (page 80).
        if UNDEFINED in all_of(tags, FORMAT):
            content = with_tag(content, FORMAT, UNSIGNED)
            tags[FORMAT] = UNSIGNED
        photometric = tags.get(PHOTOMETRIC)
        bits, formats = max(all_of(tags, BITS)), set(all_of(tags, FORMAT))
        if photometric is None and tags.get(COMPRESSION) not in JPEGS:
            raise BadImage("TIFF that does not say whether 0 is black or white: save it with PhotometricInterpretation")
        if formats != {UNSIGNED}:
            raise unread(tags, "its samples are not unsigned")
        if bits > 16:
            raise unread(tags, f"its samples have {bits} bits")
        if photometric not in (None, *READ) or (photometric == PALETTE and bits > 8):
            raise unread(tags, "its photometric interpretation is none that is read")
        _check_palette(tags, bits)
        content = _with_whole_chunks(content, tags)
    except BadImage:
        raise
    except KeyError as error:
        raise BadImage(f"damaged TIFF: tag {error} ({NAMES.get(error.args[0], '')}) is missing") from error
    except DAMAGE as error:
        raise BadImage(f"damaged TIFF: {error}") from error
    return content, tags


def unread(tags: Tags, reason: str) -> BadImage:
    """The reason for a TIFF of a kind that is not read, with what the file says of its pixels."""
    number = max(all_of(tags, FORMAT))
    return BadImage(
        f"TIFF of a kind that is not read: {reason}. It has {max(all_of(tags, BITS))} bits a sample, "
        f"{FORMATS.get(number, number)}, {tags.get(SAMPLES, 1)} samples a pixel, photometric interpretation "
        f"{tags.get(PHOTOMETRIC)}, compression {tags.get(COMPRESSION, UNCOMPRESSED)}. Save it as grey of 8 or 16 bits"
    )


def all_of(tags: Tags, tag: int, default: int = 1) -> tuple:
    """All values of a tag, of which Pillow unpacks some."""
    values = tags.get(tag, default)
    return values if isinstance(values, tuple) else (values,)


def with_tag(content: bytes, tag: int, value: int | Sequence[int]) -> bytes:
    """The file with other values for a tag of its first directory.

    value: as many numbers as before or fewer, or one for all. A tag whose type has no whole numbers (TIFF 6.0, section
    2) stays as it is.
    """
    order = "<" if content.startswith(b"II") else ">"
    entry = struct.Struct(order + "HHII")
    (directory,) = struct.unpack_from(order + "I", content, 4)
    (number,) = struct.unpack_from(order + "H", content, directory)
    start = directory + 2
    for place in range(start, start + number * entry.size, entry.size):
        found, kind, count, beyond = entry.unpack_from(content, place)
        if found == tag and kind in WHOLE_NUMBERS:
            numbers = [value] * count if isinstance(value, int) else value
            values = struct.pack(f"{order}{len(numbers)}{WHOLE_NUMBERS[kind]}", *numbers)
            where = place + entry.size - 4 if len(values) <= 4 else beyond
            changed = bytearray(content)
            entry.pack_into(changed, place, found, kind, len(numbers), beyond)
            changed[where : where + len(values)] = values
            return bytes(changed)
    return content


def chunk_size(tags: Tags) -> tuple[int, int, int]:
    """Columns, rows and samples of a pixel in the first strip or tile."""
    samples = 1 if tags.get(PLANAR) == SEPARATE_PLANES else int(tags.get(SAMPLES, 1))
    if TILE_WIDTH in tags:
        return int(tags[TILE_WIDTH]), int(tags[TILE_LENGTH]), samples
    return int(tags[WIDTH]), min(int(tags.get(STRIP_LENGTH, tags[LENGTH])), int(tags[LENGTH])), samples


def chunk_places(tags: Tags) -> tuple[tuple, tuple]:
    """Where the strips or tiles begin, and their bytes; without the second if the file does not say."""
    starts, sizes = _chunk_tags(tags)
    return all_of(tags, starts, ()), all_of(tags, sizes, ())


def _chunk_tags(tags: Tags) -> tuple[int, int]:
    return (TILES, TILE_BYTES) if TILES in tags else (STRIPS, STRIP_BYTES)


def _directory(content: bytes) -> int:
    """Where the directory begins."""
    return int.from_bytes(content[4:8], "little" if content.startswith(b"II") else "big")


def _check_palette(tags: Tags, bits: int) -> None:
    number = len(all_of(tags, COLOURS, ()))
    if tags.get(PHOTOMETRIC) == PALETTE and number != 3 * 2**bits:
        raise BadImage(f"damaged TIFF: its palette has {number} values, expected {3 * 2**bits} for {bits} bits")


def _with_whole_chunks(content: bytes, tags: Tags) -> bytes:
    """The file without surplus strips or tiles, which Pillow would show, and with sizes that are large enough.

    Raises BadImage unless there are as many strips or tiles as the size needs, and, uncompressed, as many bytes.
    Readers fill what is missing with black, or with the bytes that follow.
    """
    compression = tags.get(COMPRESSION, UNCOMPRESSED)
    # Old JPEG files keep their places elsewhere (section 22).
    if compression == OLD_JPEG:
        return content
    columns, rows, samples = chunk_size(tags)
    if columns <= 0 or rows <= 0:
        raise BadImage(f"damaged TIFF: strips or tiles of {columns}x{rows} pixels")
    name = "tile" if TILE_WIDTH in tags else "strip"
    height, planes = int(tags[LENGTH]), int(tags.get(SAMPLES, 1)) // samples
    expected = math.ceil(int(tags[WIDTH]) / columns) * math.ceil(height / rows) * planes
    starts, sizes = chunk_places(tags)
    if len(starts) < expected or 0 < len(sizes) < expected:
        raise BadImage(
            f"damaged TIFF: it lists {len(starts)} {name}s with {len(sizes)} sizes, expected {expected} for "
            f"{tags[WIDTH]}x{height} pixels of {columns}x{rows} a {name}"
        )
    starts_tag, sizes_tag = _chunk_tags(tags)
    for tag, values in ((starts_tag, starts), (sizes_tag, sizes)):
        if len(values) > expected:
            content, tags[tag] = with_tag(content, tag, values[:expected]), values[:expected]
    starts, sizes = starts[:expected], sizes[:expected]
    if compression != UNCOMPRESSED:
        return content
    lefts = [height - index % (expected // planes) * rows for index in range(expected)]
    needed = [_bytes_of(tags, columns, rows if name == "tile" else min(rows, left), samples) for left in lefts]
    others = sorted((*starts, _directory(content)))
    for index, (start, size) in enumerate(zip(starts, needed, strict=True)):
        if start + size > len(content):
            raise BadImage(f"truncated TIFF: {name} {index + 1} would end at byte {start + size} of {len(content)}")
        following = bisect.bisect_right(others, start)
        room = others[following] - start if following < len(others) else size
        if sizes and sizes[index] < size and room < size:
            raise BadImage(f"damaged TIFF: {name} {index + 1} has {sizes[index]} bytes, expected {size}")
    if sizes and any(size < least for size, least in zip(sizes, needed, strict=True)):
        # The bytes are there, so the sizes are wrong. They do not tell whether samples are packed.
        del tags[sizes_tag]
        return with_tag(content, sizes_tag, needed)
    return content


def _bytes_of(tags: Tags, columns: int, rows: int, samples: int) -> int:
    """The least bytes of an uncompressed strip or tile."""
    bits = all_of(tags, BITS)
    if tags.get(PHOTOMETRIC) == YCBCR and samples == 3:
        # Blocks of as many luminances as a pair of colours has (page 93).
        across, down = map(int, all_of(tags, SUBSAMPLING, 2)[:2] if SUBSAMPLING in tags else (2, 2))
        return math.ceil(columns / across) * math.ceil(rows / down) * (across * down + 2)
    return rows * math.ceil(columns * (sum(bits) if len(bits) == samples else bits[0] * samples) / 8)
