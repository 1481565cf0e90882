"""File bytes to grey squares: pure functions, the same for the table and for every served image."""

import io
import struct
import warnings
import zlib

import cv2
import kornia_rs
import numpy as np
from PIL import Image

JPEG_SIGNATURE = b"\xff\xd8\xff"
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A radiograph's sides have at most some 5,000 pixels; far longer ones are damaged files or decompression bombs. Of the
# longer side, because that is the side of the padded square.
MAX_SIDE_PX = 10_000
PNG_GREY = 0
# Colour type -> channels (PNG 1.2, section 4.1.1): grey, RGB, palette, grey and alpha, RGBA.
CHANNELS = {PNG_GREY: 1, 2: 3, 3: 1, 4: 2, 6: 4}
BIT_DEPTHS = (1, 2, 4, 8, 16)
# First column, first row, and steps of the seven passes of an interlaced PNG (section 2.6).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

# The chunks that say what the pixels are; others (colour profiles, texts) only make libpng print warnings.
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
SEVERAL_FRAMES = "several frames, expected one"

# cv2 would start a thread per core in each of Spark's workers.
cv2.setNumThreads(1)


class BadImage(ValueError):
    """These bytes are no usable image. The message is the reason that the quarantine table shows."""


def decode_grey(content: bytes) -> np.ndarray:
    """Bytes of a PNG, JPEG, TIFF or DICOM file to (height, width) uint8 grey.

    8-bit grey is decoded by kornia-rs (twice as fast as cv2 and bit-equal); all else, and what kornia-rs refuses, by
    cv2 after a strict check, because cv2 fills damaged files with black. Colour becomes luminance (ITU-R BT.601), alpha
    is dropped, 16 bits are scaled to 8 over their full range (PNG 1.2, section 2.1).
    Raises BadImage for anything that is not one whole image of these formats.
    """
    # A DICOM file may begin as a TIFF does, for programs that read only these.
    is_dicom = content[128:132] == b"DICM"
    if content.startswith((JPEG_SIGNATURE, *TIFF_SIGNATURES)) and not is_dicom:
        return _decode_other(content, "L")
    if content and not content.startswith(PNG_SIGNATURE):
        # Here, because pydicom takes long to import, and few processes need it.
        from etl.contract.images.dicom import decode_dicom
        from etl.contract.images.dicom_file import looks_like_dicom

        if looks_like_dicom(content):
            return decode_dicom(content)
    image = _decode_png(content)
    if image.ndim == 3:
        code = cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY
        image = cv2.cvtColor(image, code)
    return _to_8_bits(image)


def begins_like_image(content: bytes) -> bool:
    """Whether the file, or its first kilobyte, begins as one of the kinds that decode_grey reads, however damaged."""
    if content.startswith((PNG_SIGNATURE, JPEG_SIGNATURE, *TIFF_SIGNATURES)):
        return True
    # Here, because pydicom takes long to import, and few processes need it.
    from etl.contract.images.dicom_file import looks_like_dicom

    return looks_like_dicom(content)


def decode_colour(content: bytes) -> np.ndarray:
    """Bytes of a PNG, JPEG or TIFF to (height, width, 3) uint8 RGB; otherwise as decode_grey."""
    if content.startswith((JPEG_SIGNATURE, *TIFF_SIGNATURES)):
        return _decode_other(content, "RGB")
    image = _decode_png(content)
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return _to_8_bits(cv2.cvtColor(image, codes[image.shape[2] if image.ndim == 3 else 1]))


def to_square(image: np.ndarray, size_px: int, square: str = "pad") -> np.ndarray:
    """(height, width) or (height, width, 3) uint8 to (size_px, size_px) or (size_px, size_px, 3) uint8.

    square: `pad` with black, which keeps the heart-to-thorax ratio, or `stretch`, which changes it but uses all pixels.
    A side that is too long is area-averaged, one that is too short enlarged linearly.
    Raises ValueError for another `square`.
    """
    height, width = image.shape[:2]
    if square == "pad":
        side = max(height, width)
        if height != width:
            top, left = (side - height) // 2, (side - width) // 2
            image = cv2.copyMakeBorder(
                image, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=0
            )
        height, width = side, side
    elif square != "stretch":
        raise ValueError(f"square is {square!r}, expected pad or stretch")
    if max(height, width) > size_px:
        # On its own: OpenCV averages areas only where neither side is enlarged.
        image = cv2.resize(image, (min(width, size_px), min(height, size_px)), interpolation=cv2.INTER_AREA)
    if min(height, width) < size_px:
        image = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    return image


def _decode_png(content: bytes) -> np.ndarray:
    """Grey, BGR or BGRA, uint8 or uint16, as the file has it."""
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


def _decode_other(content: bytes, mode: str) -> np.ndarray:
    """JPEG or TIFF in the mode L or RGB by Pillow, which refuses truncated files where cv2 fills them with grey."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=("JPEG", "TIFF")) as film,
        ):
            # Not their number: a hostile TIFF would have millions counted.
            if getattr(film, "is_animated", False):
                raise BadImage(SEVERAL_FRAMES)
            if max(film.size) > MAX_SIDE_PX:
                raise BadImage(f"too large: {film.width}x{film.height} pixels, limit {MAX_SIDE_PX} a side")
            if film.mode.startswith("I;16"):
                grey = _to_8_bits(np.asarray(film, np.uint16))
                return grey if mode == "L" else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
            if film.mode in ("I", "F"):
                raise BadImage(f"pixels of 32 bits (mode {film.mode}), expected 8 or 16")
            return np.array(film.convert(mode))
    except BadImage:
        raise
    # Raised before the size above can be looked at.
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: more than {MAX_SIDE_PX} pixels a side") from error
    # Pillow's decoders raise many kinds of errors on damaged files.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        raise BadImage(f"damaged JPEG or TIFF: {error}") from error


def _to_8_bits(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _read_header(content: bytes) -> tuple[int, int, int, int, bool]:
    """Width, height, bit depth, colour type and whether interlaced, of a PNG (PNG 1.2, section 4.1.1)."""
    if not content:
        raise BadImage("empty file")
    if not content.startswith(PNG_SIGNATURE):
        raise BadImage(f"no PNG, JPEG, TIFF or DICOM: starts with {content[:8]!r}")
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise BadImage("truncated PNG: no header")
    width, height, bit_depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    if width * height == 0:
        raise BadImage(f"no pixels: {width}x{height}")
    if max(width, height) > MAX_SIDE_PX:
        raise BadImage(f"too large: {width}x{height} pixels, limit {MAX_SIDE_PX} a side")
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
