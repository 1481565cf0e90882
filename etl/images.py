"""File bytes to grey squares: pure functions, the same for the table and for every served image."""

import struct
import zlib

import cv2
import kornia_rs
import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A radiograph has at most some 20 million pixels; far larger headers are damaged files or decompression bombs.
MAX_PIXELS = 100_000_000
PNG_GREY = 0

# The chunks that say what the pixels are; others (colour profiles, texts) only make libpng print warnings.
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

# cv2 would start a thread per core in each of Spark's workers.
cv2.setNumThreads(1)


class BadImage(ValueError):
    """These bytes are no usable image. The message is the reason that the quarantine table shows."""


def decode_grey(content: bytes) -> np.ndarray:
    """PNG bytes to (height, width) uint8 grey.

    8-bit grey is decoded by kornia-rs (twice as fast as cv2 and bit-equal); all else, and what kornia-rs refuses, by
    cv2 after a strict check, because cv2 fills damaged files with black. Colour becomes luminance (ITU-R BT.601), alpha
    is dropped, 16 bits are scaled to 8 over their full range (PNG 1.2, section 2.1).
    Raises BadImage for anything that is not a whole PNG.
    """
    width, height, bit_depth, colour_type = _read_header(content)
    if bit_depth == 8 and colour_type == PNG_GREY:
        try:
            return kornia_rs.io.decode_image_png_u8(content, (height, width), "mono").reshape(height, width)
        except Exception:  # kornia-rs raises plain exceptions; cv2 below decides whether the file is good
            pass
    image = cv2.imdecode(np.frombuffer(_checked(content), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BadImage("cannot be decoded")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.ndim == 3:
        code = cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY
        image = cv2.cvtColor(image, code)
    return image


def to_square(image: np.ndarray, size_px: int) -> np.ndarray:
    """(height, width) uint8 to (size_px, size_px) uint8: padded with black to a square, then area-averaged.

    Padding keeps the heart-to-thorax ratio that stretching would change. Smaller images are enlarged linearly.
    """
    height, width = image.shape
    side = max(height, width)
    if height != width:
        top, left = (side - height) // 2, (side - width) // 2
        image = cv2.copyMakeBorder(
            image, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=0
        )
    if side == size_px:
        return image
    interpolation = cv2.INTER_AREA if side > size_px else cv2.INTER_LINEAR
    return cv2.resize(image, (size_px, size_px), interpolation=interpolation)


def _read_header(content: bytes) -> tuple[int, int, int, int]:
    """Width, height, bit depth and colour type of a PNG (PNG 1.2, section 4.1.1)."""
    if not content:
        raise BadImage("empty file")
    if not content.startswith(PNG_SIGNATURE):
        raise BadImage(f"not a PNG: starts with {content[:8]!r}")
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise BadImage("truncated PNG: no header")
    width, height, bit_depth, colour_type = struct.unpack(">IIBB", content[16:26])
    if width * height == 0:
        raise BadImage(f"no pixels: {width}x{height}")
    if width * height > MAX_PIXELS:
        raise BadImage(f"too large: {width}x{height} pixels, limit {MAX_PIXELS}")
    return width, height, bit_depth, colour_type


def _checked(content: bytes) -> bytes:
    """The PNG reduced to its PIXEL_CHUNKS; raises BadImage for a wrong checksum or missing pixels."""
    kept, position, pixels = [PNG_SIGNATURE], len(PNG_SIGNATURE), zlib.decompressobj()
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
                pixels.decompress(content[position + 8 : end - 4])
            except zlib.error as error:
                raise BadImage(f"damaged PNG: {error}") from error
        position = end
    if not pixels.eof:
        raise BadImage("truncated PNG: the pixel stream is incomplete")
    return b"".join(kept)
