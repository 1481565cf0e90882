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


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


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


def tiff_of(pixels: np.ndarray, bits: int = 0, order: str = "<", words: bool = False, **tags: int | list) -> bytes:
    """A TIFF of (h, w) or (h, w, samples) in one strip, packed to `bits`, or not with `words`; `tags` replace and add.

    Keywords of tags are t and their number; a value of None removes.
    """
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = bits or 8 * pixels.itemsize
    if words or bits in (8, 16):
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    else:
        rows = ("".join(f"{value:0{bits}b}" for value in row.ravel()) for row in pixels)
        padded = (row + "0" * (-len(row) % 8) for row in rows)
        data = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in padded)
    values = {256: width, 257: height, 258: [bits] * samples, 259: 1, 262: 2 if samples > 1 else 1, 273: 0}
    values |= {277: samples, 278: height, 279: len(data)} | {int(key[1:]): value for key, value in tags.items()}
    if values[259] == 8:
        data = zlib.compress(data)
        values[279] = len(data)
    lists = {tag: value if isinstance(value, list) else [value] for tag, value in values.items() if value is not None}
    place = 8 + 2 + 12 * len(lists) + 4
    beyond = b""
    entries = []
    for tag, numbers in sorted(lists.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, beyond = struct.pack(f"{order}I", place + len(beyond)), beyond + packed
        entries.append([tag, len(numbers), packed])
    for entry in entries:
        if entry[0] == 273:
            entry[2] = struct.pack(f"{order}I", place + len(beyond))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    listed = b"".join(struct.pack(f"{order}HHI", tag, 4, number) + packed for tag, number, packed in entries)
    return head + listed + bytes(4) + beyond + data
