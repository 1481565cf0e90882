"""Image files for the tests, made in memory."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What EXIF 2.32 (section 4.6.4) says of the stored rows and columns, as slices of the film that is to be shown.
STORED = {
    1: lambda film: film,
    2: lambda film: film[:, ::-1],  # the first column is the right side
    3: lambda film: film[::-1, ::-1],
    4: lambda film: film[::-1],
    5: lambda film: film.T,  # the first row is the left side
    6: lambda film: film.T[::-1],  # the first row is the right side, the first column the top
    7: lambda film: film.T[::-1, ::-1],
    8: lambda film: film.T[:, ::-1],
}


def exif(orientation: int, prefix: bytes = b"") -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    return prefix + tags.tobytes().removeprefix(b"Exif\0\0")


def xmp(orientation: int, form: str = 'tiff:Orientation="{}"/>') -> bytes:
    return f"<x:xmpmeta><rdf:Description {form.format(orientation)}</x:xmpmeta>".encode()


def chunk(kind: bytes, content: bytes, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(kind + content) ^ damaged
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def raw_png(width, height, depth, colour, stream: bytes, *, interlaced=0, before=b"", after=b"", cut=None) -> bytes:
    """A PNG of these filtered rows; `before` and `after` are chunks around the pixels, `cut` bytes go into an IDAT."""
    packed = zlib.compress(stream)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    cut = cut or len(packed)
    pixels = b"".join(chunk(b"IDAT", packed[start : start + cut]) for start in range(0, len(packed), cut))
    return SIGNATURE + header + before + pixels + after + chunk(b"IEND", b"")


def png_of(pixels: np.ndarray, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of (h, w) grey or (h, w, 2, 3 or 4) grey and alpha, RGB or RGBA; uint8 or uint16."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    height, width = pixels.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return raw_png(width, height, 8 * pixels.itemsize, colour, rows, before=before, after=after)


def encoded(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    film = image if isinstance(image, Image.Image) else Image.fromarray(image)
    film.save(file, kind, **options)
    return file.getvalue()


def packed(pixels: np.ndarray, bits: int, order: str) -> bytes:
    """Rows of (h, w) or (h, w, samples), packed to `bits` if they are not the bits of the array."""
    if bits == 8 * pixels.itemsize:
        return pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    rows = ("".join(f"{value:0{bits}b}" for value in row.ravel()) for row in pixels)
    padded = (row + "0" * (-len(row) % 8) for row in rows)
    return b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in padded)


def lzw(data: bytes) -> bytes:
    """LZW of TIFF without any savings: codes of 9 bits, cleared before they become longer."""
    pieces = [data[start : start + 200] for start in range(0, len(data), 200)]
    codes = [code for piece in pieces for code in (256, *piece)] + [257]
    text = "".join(f"{code:09b}" for code in codes)
    return int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big")


def packbits(data: bytes) -> bytes:
    pieces = [data[start : start + 128] for start in range(0, len(data), 128)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


COMPRESSED = {1: bytes, 5: lzw, 8: zlib.compress, 32773: packbits, 32946: zlib.compress}


def _size_of(values: list | bytes) -> int:
    return 1 if isinstance(values, bytes) else 4


def tiff_of(
    pixels: np.ndarray,
    bits: int = 0,
    order: str = "<",
    words: bool = False,
    *,
    rows: int = 0,
    tile: int = 0,
    drop: int = 0,
    **tags: int | list | bytes,
) -> bytes:
    """A TIFF of (h, w) or (h, w, samples), packed to `bits`, or not with `words`; `tags` replace and add.

    rows: rows of a strip; 0: a single strip. tile: width and height of each tile; 0: strips. drop: bytes by which each
    strip or tile is too short.
    Keywords of tags are t and their number; a value of None removes; bytes are text of 5 or more.
    """
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = bits or 8 * pixels.itemsize
    rows = rows or height
    values = {256: width, 257: height, 258: [bits] * samples, 259: 1, 262: 2 if samples > 1 else 1, 277: samples}
    starts, sizes = (324, 325) if tile else (273, 279)
    values |= {322: tile, 323: tile} if tile else {278: rows}
    replaced = {int(key[1:]): value for key, value in tags.items()}
    planes = np.moveaxis(pixels, 2, 0) if replaced.get(284) == 2 else [pixels]
    chunks = []
    for plane in planes:
        for top in range(0, height, tile or rows):
            for left in range(0, width, tile or width):
                part = plane[top : top + (tile or rows), left : left + (tile or width)]
                if tile:
                    beyond = [(0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)]
                    part = np.pad(part, beyond[: part.ndim])
                data = packed(part, 8 * part.itemsize if words else bits, order)
                data = COMPRESSED.get(replaced.get(259, 1), bytes)(data[: len(data) - drop])
                chunks.append(data)
    values[sizes] = [len(data) for data in chunks]
    values[starts] = [0] * len(chunks)
    values |= replaced
    lists = {
        tag: value if isinstance(value, list | bytes) else [value] for tag, value in values.items() if value is not None
    }
    place = 8 + 2 + 12 * len(lists) + 4
    end = place + sum(_size_of(values) * len(values) for values in lists.values() if len(values) > 1)
    if len(lists.get(starts, [])) == len(chunks):
        lists[starts] = [end + sum(len(data) for data in chunks[:index]) for index in range(len(chunks))]
    beyond = b""
    entries = []
    for tag, numbers in sorted(lists.items()):
        is_text = isinstance(numbers, bytes)
        content = numbers if is_text else struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            content, beyond = struct.pack(f"{order}I", place + len(beyond)), beyond + content
        entries.append(struct.pack(f"{order}HHI", tag, 2 if is_text else 4, len(numbers)) + content)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    return head + b"".join(entries) + bytes(4) + beyond + b"".join(chunks)
