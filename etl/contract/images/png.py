"""PNG files to pixels, checked to the last byte."""

import struct
import zlib

import cv2
import kornia_rs
import numpy as np

from etl.contract.images.pixels import SEVERAL_FRAMES, BadImage, check_size

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_GREY = 0
# Colour type -> channels (PNG 1.2, section 4.1.1): grey, RGB, palette, grey and alpha, RGBA.
CHANNELS = {PNG_GREY: 1, 2: 3, 3: 1, 4: 2, 6: 4}
BIT_DEPTHS = (1, 2, 4, 8, 16)
# First column, first row, and steps of the seven passes of an interlaced PNG (section 2.6).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

# The chunks that say what the pixels are. Others (colour profiles, texts) only make libpng print warnings.
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def decode_png(content: bytes) -> np.ndarray:
    """(height, width) grey, or (height, width, 3 or 4) BGR or BGRA; uint8 or uint16, as the file has it.

    8-bit grey is decoded by kornia-rs (twice as fast as cv2 and bit-equal). All else, and what kornia-rs refuses, is
    decoded by cv2 after a strict check, because cv2 fills damaged files with black. Raises BadImage with the reason.
    """
    width, height, bit_depth, colour_type, interlaced = _read_header(content)
    if _is_animated(content):
        raise BadImage(SEVERAL_FRAMES)
    if bit_depth == 8 and colour_type == PNG_GREY:
        try:
            return kornia_rs.io.decode_image_png_u8(content, (height, width), "mono").reshape(height, width)
        except Exception:  # kornia-rs raises plain exceptions; cv2 below decides whether the file is good
            pass
    num_bytes = _count_bytes(width, height, bit_depth * CHANNELS[colour_type], interlaced)
    image = cv2.imdecode(np.frombuffer(_checked(content, num_bytes), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BadImage("cannot be decoded")
    return image


def _read_header(content: bytes) -> tuple[int, int, int, int, bool]:
    """Width, height, bit depth, colour type and whether interlaced, of a PNG (PNG 1.2, section 4.1.1)."""
    if not content:
        raise BadImage("empty file")
    if not content.startswith(PNG_SIGNATURE):
        raise BadImage(f"no PNG, JPEG, TIFF or DICOM: starts with {content[:8]!r}")
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise BadImage("truncated PNG: no header")
    width, height, bit_depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    check_size(width, height)
    if bit_depth not in BIT_DEPTHS or colour_type not in CHANNELS:
        raise BadImage(f"damaged PNG: no PNG has bit depth {bit_depth} and colour type {colour_type}")
    return width, height, bit_depth, colour_type, interlace != 0


def _is_animated(content: bytes) -> bool:
    """Whether the PNG has a chunk of animation for several frames; it comes before the pixels (PNG 3, section 5.6)."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(content):
        length, kind, num_frames = struct.unpack_from(">I4sI", content, position)
        if kind in (b"acTL", b"IDAT"):
            return kind == b"acTL" and num_frames > 1
        position += 12 + length
    return False


def _count_bytes(width: int, height: int, pixel_bits: int, interlaced: bool) -> int:
    """Bytes of the inflated pixel stream: each row of each pass starts with the byte of its filter (PNG 1.2, 2.3)."""
    total = 0
    for column, row, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(column, width, step_x)), len(range(row, height, step_y))
        # A pass without columns has no rows either.
        total += rows * (1 + (columns * pixel_bits + 7) // 8) if columns else 0
    return total


def _checked(content: bytes, num_bytes: int) -> bytes:
    """The PNG reduced to its PIXEL_CHUNKS.

    Raises BadImage for a wrong checksum or a pixel stream that does not inflate to `num_bytes`; inflates no more of it.
    """
    kept, position, pixels = [PNG_SIGNATURE], len(PNG_SIGNATURE), zlib.decompressobj()
    missing = num_bytes
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(content):
            raise BadImage("truncated PNG: ends before IEND")
        (length,) = struct.unpack_from(">I", content, position)
        kind, end = content[position + 4 : position + 8], position + 12 + length
        if end > len(content):
            raise BadImage(f"truncated PNG: {kind!r} chunk is cut")
        (checksum,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(content[position + 4 : end - 4]) != checksum:
            raise BadImage(f"damaged PNG: wrong checksum of a {kind!r} chunk")
        if kind in PIXEL_CHUNKS:
            kept.append(content[position:end])
        if kind == b"IDAT":
            try:
                missing -= len(pixels.decompress(content[position + 8 : end - 4], missing + 1))
            except zlib.error as error:
                raise BadImage(f"damaged PNG: {error}") from error
            if missing < 0:
                raise BadImage(f"damaged PNG: surplus pixels, its header accounts for {num_bytes} bytes")
        position = end
    if not pixels.eof:
        raise BadImage("truncated PNG: the pixel stream is incomplete")
    if missing:
        raise BadImage(f"damaged PNG: too few pixels, {missing} of {num_bytes} bytes are missing")
    return b"".join(kept)
