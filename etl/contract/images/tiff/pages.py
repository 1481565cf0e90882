"""The first page of a TIFF as a classic TIFF of one page, which all libraries read alike."""

import struct
from typing import NamedTuple

from etl.contract.images.pixels import SEVERAL_FRAMES, BadImage

# Bytes of a value, by its type (TIFF 6.0, section 2); the last three are those of BigTIFF.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Types of whole numbers that have 8 bytes in BigTIFF, and 4 elsewhere.
LONG, LONGS_OF_8 = 4, (16, 18)
SUBFILE_TYPE, REDUCED = 254, 1
# More copies in lower resolution than a film of MAX_SIDE_PX has.
MAX_COPIES = 20


class Layout(NamedTuple):
    """How a file stores its directories; offsets and counts as struct has them."""

    order: str
    first: int
    """where the file says where the first directory begins"""
    number: str
    entry: str
    offset: str


class Page(NamedTuple):
    """A directory of a file."""

    entries: list[tuple[int, int, int, bytes]]
    """tag, type, number of values, and the bytes that hold them or say where they are"""
    next: int
    next_at: int
    """where the file says where the next directory begins"""


def as_classic(content: bytes) -> bytes:
    """The file without pages but its first one, and if it is a BigTIFF, as a classic TIFF.

    Pillow does not read BigTIFF of big-endian byte order. Raises BadImage if a directory is cut, and for pages that are
    no copies in lower resolution (TIFF 6.0, page 36).
    """
    order = "<" if content.startswith(b"II") else ">"
    is_big = b"+" in content[2:4]
    layout = Layout(order, 8, "Q", "HHQ8s", "Q") if is_big else Layout(order, 4, "H", "HHI4s", "I")
    (first,) = _unpack(content, layout, layout.offset, layout.first)
    page = _read_page(content, layout, first)
    seen, following = {0, first}, page.next
    while following not in seen:
        seen.add(following)
        copy = _read_page(content, layout, following)
        if len(seen) > MAX_COPIES or not _is_reduced(copy, layout):
            raise BadImage(SEVERAL_FRAMES)
        following = copy.next
    if is_big:
        return _rewritten(content, layout, page)
    if page.next:
        return content[: page.next_at] + bytes(4) + content[page.next_at + 4 :]
    return content


def _unpack(content: bytes, layout: Layout, numbers: str, place: int) -> tuple:
    try:
        return struct.unpack_from(layout.order + numbers, content, place)
    except struct.error as error:
        raise BadImage(f"truncated TIFF: it has {len(content)} bytes") from error


def _read_page(content: bytes, layout: Layout, start: int) -> Page:
    size = struct.calcsize(layout.order + layout.number)
    if start + size > len(content):
        raise BadImage(f"truncated TIFF: its directory would begin at byte {start} of {len(content)}")
    (number,) = _unpack(content, layout, layout.number, start)
    entry = struct.Struct(layout.order + layout.entry)
    end = start + size + entry.size * number
    if end > len(content):
        raise BadImage(f"truncated TIFF: its directory would end at byte {end} of {len(content)}")
    entries = list(entry.iter_unpack(content[start + size : end]))
    # Some writers leave out the end of the last directory.
    is_last = end + struct.calcsize(layout.order + layout.offset) > len(content)
    return Page(entries, 0 if is_last else _unpack(content, layout, layout.offset, end)[0], end)


def _is_reduced(page: Page, layout: Layout) -> bool:
    for tag, kind, _, value in page.entries:
        if tag == SUBFILE_TYPE and kind in (3, LONG):
            return bool(struct.unpack_from(layout.order + ("H" if kind == 3 else "I"), value)[0] & REDUCED)
    return False


def _rewritten(content: bytes, layout: Layout, page: Page) -> bytes:
    """A BigTIFF as a classic one: its pixels stay in their place, and its directory follows them."""
    start = len(content) + len(content) % 2
    beyond = start + 2 + 12 * len(page.entries) + 4
    entries, values = [], b""
    for tag, kind, count, value in page.entries:
        # Readers leave out a tag of an unknown type.
        if kind not in SIZES:
            continue
        size = SIZES[kind] * count
        if size > 8:
            (place,) = struct.unpack(layout.order + "Q", value)
            if place + size > len(content):
                raise BadImage(f"truncated TIFF: tag {tag} would end at byte {place + size} of {len(content)}")
            value = content[place : place + size]
        if kind in LONGS_OF_8:
            numbers = struct.unpack(f"{layout.order}{count}Q", value[:size])
            if max(numbers, default=0) >= 2**32:
                raise BadImage(f"truncated TIFF: tag {tag} says {max(numbers)}, of {len(content)} bytes")
            kind, size, value = LONG, 4 * count, struct.pack(f"{layout.order}{count}I", *numbers)
        if size > 4:
            offset = struct.pack(layout.order + "I", beyond + len(values))
            values += value[:size] + bytes(size % 2)
            value = offset
        entries.append(struct.pack(layout.order + "HHI", tag, kind, count) + value[:4].ljust(4, b"\0"))
    # The entries that were left out leave room behind.
    directory = struct.pack(layout.order + "H", len(entries)) + b"".join(entries)
    head = (b"II*\0" if layout.order == "<" else b"MM\0*") + struct.pack(layout.order + "I", start)
    return head + content[8:].ljust(start - 8, b"\0") + directory.ljust(beyond - start, b"\0") + values
