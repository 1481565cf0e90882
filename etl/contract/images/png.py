"""PNG files to pixels, checked to the last byte."""

import io
import struct
import zlib

import cv2
import kornia_rs
import numpy as np
from PIL import PngImagePlugin

from etl.contract.images.orientation import PNG_SIGNATURE, RAW_PROFILES, png_chunk, png_orientation
from etl.contract.images.pixels import SEVERAL_FRAMES, BadImage, Stored, check_size

PNG_GREY, PNG_PALETTE, PNG_GREY_ALPHA = 0, 3, 4
# Colour type -> channels (PNG 1.2, section 4.1.1): grey, RGB, palette, grey and alpha, RGBA.
CHANNELS = {PNG_GREY: 1, 2: 3, PNG_PALETTE: 1, PNG_GREY_ALPHA: 2, 6: 4}
# The bit depths of each colour type (PNG 3, table 8).
BIT_DEPTHS = {PNG_GREY: (1, 2, 4, 8, 16), 2: (8, 16), PNG_PALETTE: (1, 2, 4, 8), PNG_GREY_ALPHA: (8, 16), 6: (8, 16)}
# The methods of compression, filters and interlacing that there are (PNG 3, section 11.2.1).
METHODS = {"compression": (0,), "filter": (0,), "interlace": (0, 1)}
# What Apple's developer tools make of a PNG in an app; the pixels lack the head of a zlib stream.
APPLE = b"CgBI"
# First column, first row, and steps of the seven passes of an interlaced PNG (section 2.6).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

# The chunks that say what the pixels are, without alpha.
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# The ancillary chunks that are followed, and must be whole: number of frames, significant bits, EXIF. Others may be
# damaged (colour profiles, times); texts hold EXIF or XMP if they begin with one of PROFILES.
NOTES = (b"acTL", b"sBIT", b"eXIf")
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PROFILES = (*(name.encode() + b"\0" for name in RAW_PROFILES), b"XML:com.adobe.xmp\0")
# Length and kind of a chunk; its data and four bytes of checksum follow.
HEAD = struct.Struct(">I4s")


def decode_png(content: bytes) -> Stored:
    """The pixels as the file has them, widened to 8 bits if they have fewer, and what it says of them.

    8-bit grey is decoded by kornia-rs (twice as fast as cv2 and bit-equal). All else, and what kornia-rs refuses, is
    decoded by cv2 after a strict check, because cv2 fills damaged files with black. Raises BadImage with the reason.
    """
    width, height, bit_depth, colour_type, interlaced = _read_header(content)
    significant, metadata = _read_notes(content)
    white = _white(significant, bit_depth, colour_type)
    orientation = png_orientation(metadata)
    if bit_depth == 8 and colour_type == PNG_GREY:
        try:
            image = kornia_rs.io.decode_image_png_u8(content, (height, width), "mono").reshape(height, width)
            return Stored(image, white, orientation)
        except Exception:  # kornia-rs raises plain exceptions; cv2 below decides whether the file is good
            pass
    num_bytes = _count_bytes(width, height, bit_depth * CHANNELS[colour_type], interlaced)
    checked = _checked(content, num_bytes, colour_type)
    image = cv2.imdecode(np.frombuffer(checked, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BadImage("cannot be decoded")
    if colour_type == PNG_PALETTE:
        _check_palette(checked, bit_depth)
    return Stored(image, white, orientation)


def _read_header(content: bytes) -> tuple[int, int, int, int, bool]:
    """Width, height, bit depth, colour type and whether interlaced, of a PNG (PNG 3, section 11.2.1)."""
    if content[12:16] == APPLE:
        raise BadImage("Apple's own kind of PNG (CgBI): save it as a standard PNG")
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise BadImage("truncated PNG: no header")
    width, height, bit_depth, colour_type, *methods = struct.unpack(">IIBBBBB", content[16:29])
    check_size(width, height)
    if bit_depth not in BIT_DEPTHS.get(colour_type, ()):
        raise BadImage(f"damaged PNG: no PNG has bit depth {bit_depth} and colour type {colour_type}")
    for (name, known), method in zip(METHODS.items(), methods, strict=True):
        if method not in known:
            raise BadImage(f"damaged PNG: unknown {name} method {method}, expected {' or '.join(map(str, known))}")
    return width, height, bit_depth, colour_type, methods[-1] != 0


def _read_notes(content: bytes) -> tuple[bytes, list[bytes]]:
    """The significant bits of each channel (sBIT), and the chunks with EXIF or XMP.

    Raises BadImage for several frames, and for damaged NOTES.
    """
    position, last = len(PNG_SIGNATURE), len(content) - 12
    significant, metadata, pixels_begun = b"", [], False
    while position <= last:
        length, kind = HEAD.unpack_from(content, position)
        if kind == b"IDAT":
            # Many files have a hundred of them.
            pixels_begun, position = True, position + 12 + length
            continue
        end = position + 12 + length
        if kind == b"IEND":
            break
        if kind in NOTES and end <= len(content):
            _check_sum(content, position, end)
            # An animation is announced before the pixels (PNG 3, section 5.6).
            if kind == b"acTL" and not pixels_begun and content[position + 8 : position + 12] > b"\0\0\0\1":
                raise BadImage(SEVERAL_FRAMES)
            if kind == b"sBIT":
                significant = content[position + 8 : end - 4]
            if kind == b"eXIf":
                metadata.append(content[position:end])
        elif kind in TEXTS and content.startswith(PROFILES, position + 8) and _is_whole(content, position, end):
            metadata.append(content[position:end])
        position = end
    return significant, metadata


def _white(significant: bytes, bit_depth: int, colour_type: int) -> int:
    """The white of pixels that are stored as their significant bits alone; 0 if the file says nothing of the kind.

    PNG 3, section 11.3.2.4, wants them scaled up to the bit depth, but detectors' bits are often written as they are.
    """
    bits = max(significant[:1] if colour_type in (PNG_GREY, PNG_GREY_ALPHA) else significant[:3], default=0)
    if colour_type == PNG_PALETTE:
        bit_depth = 8
    if not 0 < bits < bit_depth:
        return 0
    # As cv2 widens the pixels.
    return (2**bits - 1) * (65535 if bit_depth == 16 else 255) // (2**bit_depth - 1)


def _check_palette(checked: bytes, bit_depth: int) -> None:
    """Raises BadImage if a pixel has a colour that the palette lacks (PNG 3, section 11.2.2); libpng makes it black."""
    start = checked.index(b"PLTE")
    colours = int.from_bytes(checked[start - 4 : start]) // 3
    if colours < 2**bit_depth:
        largest = np.asarray(PngImagePlugin.PngImageFile(io.BytesIO(checked))).max()
        if largest >= colours:
            raise BadImage(
                f"damaged PNG: its palette has {colours} colours, but a pixel has number {largest}, counted from 0"
            )


def _is_whole(content: bytes, position: int, end: int) -> bool:
    return content[end - 4 : end] == struct.pack(">I", zlib.crc32(content[position + 4 : end - 4]))


def _check_sum(content: bytes, position: int, end: int) -> None:
    if not _is_whole(content, position, end):
        raise BadImage(f"damaged PNG: wrong checksum of a {content[position + 4 : position + 8]!r} chunk")


def _count_bytes(width: int, height: int, pixel_bits: int, interlaced: bool) -> int:
    """Bytes of the inflated pixel stream: each row of each pass starts with the byte of its filter (PNG 1.2, 2.3)."""
    total = 0
    for column, row, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(column, width, step_x)), len(range(row, height, step_y))
        # A pass without columns has no rows either.
        total += rows * (1 + (columns * pixel_bits + 7) // 8) if columns else 0
    return total


def _checked(content: bytes, num_bytes: int, colour_type: int) -> bytes:
    """The PNG reduced to its PIXEL_CHUNKS, without surplus pixels: by the header's size, as kornia-rs reads them.

    Raises BadImage for a wrong checksum, a palette without colours, or a pixel stream that does not inflate to
    `num_bytes`; inflates no more of it.
    """
    kept: dict[bytes, list[bytes]] = {kind: [] for kind in PIXEL_CHUNKS}
    position, pixels, missing = len(PNG_SIGNATURE), zlib.decompressobj(), num_bytes
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(content):
            raise BadImage("truncated PNG: ends before IEND")
        length, kind = HEAD.unpack_from(content, position)
        end = position + 12 + length
        if end > len(content):
            raise BadImage(f"truncated PNG: {kind!r} chunk is cut")
        # The fifth bit of the name marks ancillary chunks (PNG 3, section 5.4).
        if not kind[0] & 1 << 5:
            _check_sum(content, position, end)
        if kind == b"PLTE" and colour_type != PNG_PALETTE:
            # No more than a proposal for screens of few colours (PNG 3, section 11.2.2).
            position = end
            continue
        if kind == b"PLTE" and (length % 3 or length > 3 * 256):
            raise BadImage(f"damaged PNG: a palette of {length} bytes, expected 3 for each of at most 256 colours")
        if kind == b"IDAT" and colour_type == PNG_PALETTE and not kept[b"PLTE"]:
            raise BadImage("damaged PNG: palette without colours, no PLTE before the pixels")
        if kind in kept:
            kept[kind].append(content[position:end])
        if kind == b"IDAT" and missing >= 0:
            try:
                missing -= len(pixels.decompress(content[position + 8 : end - 4], missing + 1))
            except zlib.error as error:
                raise BadImage(f"damaged PNG: {error}") from error
        position = end
    if missing < 0:
        stream = zlib.decompressobj().decompress(b"".join(part[8:-4] for part in kept[b"IDAT"]), num_bytes)
        kept[b"IDAT"] = [png_chunk(b"IDAT", zlib.compress(stream, 1))]
    elif not pixels.eof:
        raise BadImage("truncated PNG: the pixel stream is incomplete")
    elif missing:
        raise BadImage(f"damaged PNG: too few pixels, {missing} of {num_bytes} bytes are missing")
    return PNG_SIGNATURE + b"".join(part for parts in kept.values() for part in parts)
