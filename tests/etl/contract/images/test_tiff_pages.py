"""TIFF files of several pages, and BigTIFF in both byte orders."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.pixels import BadImage
from tests.etl.image_files import tiff_of

FILM = (np.arange(33 * 21).reshape(21, 33) * 3 % 256).astype(np.uint8)
DEEP = FILM.astype(np.uint16) * 257
FILMS = {
    "8": FILM,
    "16": DEEP,
    "8, RGB": np.dstack([FILM, FILM[::-1], FILM[:, ::-1]]),
    "16, RGB": np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]]),
}
TAGS = {
    "plain": {},
    "deflated": {"t259": 8},
    "strips": {"rows": 4},
    "tiles": {"tile": 16},
    "inverted": {"t262": 0},
    "turned": {"t274": 6},
    "described": {"t270": b"a film of the chest\0"},
}


def tags_of(content: bytes) -> dict[int, list[int] | bytes]:
    """What tiff_of wrote: numbers of 4 bytes, or text."""
    order, tags = "<" if content.startswith(b"II") else ">", {}
    (number,) = struct.unpack_from(order + "H", content, 8)
    for tag, kind, count, value in struct.iter_unpack(order + "HHI4s", content[10 : 10 + 12 * number]):
        (place,) = struct.unpack(order + "I", value)
        size = count if kind == 2 else 4 * count
        data = content[place : place + size] if size > 4 else value
        tags[tag] = data if kind == 2 else list(struct.unpack(f"{order}{count}I", data))
    return tags


def as_big(content: bytes, form: str = "Q") -> bytes:
    """A classic TIFF of tiff_of as a BigTIFF, whose directory follows the pixels. form: Q or I, of its numbers."""
    order = "<" if content.startswith(b"II") else ">"
    start, tags, entries, beyond = 16 + len(content), tags_of(content), [], b""
    for tag, values in tags.items():
        moved = [value + 16 for value in values] if tag in (273, 324) else values
        data = values if isinstance(values, bytes) else struct.pack(f"{order}{len(moved)}{form}", *moved)
        kind, where = 2 if data is values else {"Q": 16, "I": 4}[form], data.ljust(8, b"\0")
        if len(data) > 8:
            where = struct.pack(order + "Q", start + 8 + 20 * len(tags) + 8 + len(beyond))
            beyond += data
        entries.append(struct.pack(order + "HHQ", tag, kind, len(values)) + where)
    head = (b"II+\0" if order == "<" else b"MM\0+") + struct.pack(order + "HHQ", 8, 0, start)
    return head + content + struct.pack(order + "Q", len(tags)) + b"".join(entries) + bytes(8) + beyond


def of_pages(*pages: bytes) -> bytes:
    """Classic TIFFs of tiff_of, of the same byte order, as one of several pages."""
    order, whole, starts = "<" if pages[0].startswith(b"II") else ">", pages[0][:8], []
    for page in pages:
        whole += page
        starts.append(len(whole))
        tags, entries, beyond = tags_of(page), [], b""
        for tag, values in tags.items():
            moved = [value + len(whole) - len(page) for value in values] if tag in (273, 324) else values
            data = struct.pack(f"{order}{len(moved)}I", *moved)
            if len(data) > 4:
                where = struct.pack(order + "I", len(whole) + 2 + 12 * len(tags) + 4 + len(beyond))
                data, beyond = where, beyond + data
            entries.append(struct.pack(order + "HHI", tag, 4, len(values)) + data)
        whole += struct.pack(order + "H", len(tags)) + b"".join(entries) + b"NEXT" + beyond
    for start in [*starts[1:], 0]:
        whole = whole.replace(b"NEXT", struct.pack(order + "I", start), 1)
    return whole[:4] + struct.pack(order + "I", starts[0]) + whole[8:]


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("film", FILMS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["I", "Q"])
def test_a_big_tiff_shows_the_same_in_both_byte_orders(film, tags, order, form):
    if "RGB" in film and tags == "inverted":
        return
    content = tiff_of(FILMS[film], order=order, **TAGS[tags])
    big = as_big(content, form)
    assert np.array_equal(decode_grey(big), decode_grey(content))
    assert np.array_equal(decode_colour(big), decode_colour(content))
    for end in (9, 17, 200, len(big) // 2, len(big) - 9):
        with pytest.raises(BadImage):
            decode_grey(big[:end])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("film", FILMS)
def test_copies_in_lower_resolution_are_no_pages(film, order):
    pixels = FILMS[film]
    first, copy = tiff_of(pixels, order=order, rows=4), tiff_of(pixels[::2, ::2], order=order, t254=1)
    page = tiff_of(pixels[::-1], order=order)
    alone = decode_grey(first)
    assert np.array_equal(decode_grey(of_pages(first, copy)), alone)
    assert np.array_equal(decode_grey(of_pages(first, copy, copy)), alone)
    assert np.array_equal(decode_colour(of_pages(first, copy)), decode_colour(first))
    marked = tiff_of(pixels, order=order, t254=2)
    for several in ((first, page), (first, copy, page), (copy, first), (marked, marked), (first, *[copy] * 40)):
        with pytest.raises(BadImage, match="several frames, expected one: save the one that you want"):
            decode_grey(of_pages(*several))


def test_a_directory_that_is_its_own_next_page_is_one_page():
    content = bytearray(tiff_of(FILM))
    (number,) = struct.unpack_from("<H", content, 8)
    struct.pack_into("<I", content, 10 + 12 * number, 8)
    assert np.array_equal(decode_grey(bytes(content)), FILM)
    struct.pack_into("<I", content, 10 + 12 * number, 10**6)
    with pytest.raises(BadImage, match="its directory would begin at byte 1000000"):
        decode_grey(bytes(content))


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=5), st.sampled_from("<>"))
def test_a_damaged_big_tiff_is_an_image_or_a_reason(places, order):
    content = bytearray(as_big(tiff_of(FILM, order=order, rows=4)))
    for place, byte in places:
        content[place] = byte
    try:
        assert decode_grey(bytes(content)).dtype == np.uint8
    except BadImage as reason:
        assert 0 < len(str(reason)) < 300 and " at 0x" not in str(reason)
