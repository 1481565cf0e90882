"""TIFF files whose bytes do not fit their tags, or whose tags say what few writers say."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.pixels import BadImage
from tests.etl.image_files import COMPRESSED, encoded, tiff_of

# Greys in which no row or column is like another.
FILM = (np.arange(33 * 21).reshape(21, 33) * 3 % 256).astype(np.uint8)
CHUNKS = {"a strip": {}, "strips": {"rows": 4}, "tiles": {"tile": 16}}


def widened(bits: int, film: np.ndarray = FILM) -> np.ndarray:
    return (film.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("order", ["<", ">"])
def test_samples_of_9_to_15_bits_are_read_packed_and_in_words_however_they_are_stored(compression, chunks, order):
    for bits in range(9, 16):
        film = widened(bits)
        options = {"bits": bits, "order": order, "t259": compression, **CHUNKS[chunks]}
        assert np.abs(decode_grey(tiff_of(film, words=True, **options)) - FILM.astype(int)).max() <= 1
        inverted = tiff_of(2**bits - 1 - film, words=True, t262=0, **options)
        assert np.abs(decode_grey(inverted) - FILM.astype(int)).max() <= 1
        colours = np.dstack([film, film[::-1], film[:, ::-1]])
        shown = np.dstack([FILM, FILM[::-1], FILM[:, ::-1]]).astype(int)
        assert np.abs(decode_colour(tiff_of(colours, words=True, **options)) - shown).max() <= 1
        if bits in (10, 12, 14):
            assert np.abs(decode_grey(tiff_of(film, **options)) - FILM.astype(int)).max() <= 1
            assert np.abs(decode_colour(tiff_of(colours, **options)) - shown).max() <= 1
        else:
            with pytest.raises(BadImage, match=f"its samples of {bits} bits are packed"):
                decode_grey(tiff_of(film, **options))


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_words_that_exceed_their_bits_have_16(bits, compression):
    options = {"bits": bits, "words": True, "t259": compression}
    assert np.array_equal(decode_grey(tiff_of(widened(16), **options)), FILM)
    assert np.array_equal(decode_grey(tiff_of(65535 - widened(16), t262=0, **options)), FILM)
    if bits == 12:
        with pytest.raises(BadImage, match="as if 14 bits were stored in 16"):
            decode_grey(tiff_of(widened(14), **options))


@given(st.integers(2, 40), st.integers(1, 9), st.integers(1, 9), st.sampled_from([10, 12, 14]), st.data())
def test_words_and_packed_samples_are_told_apart_at_every_width(width, height, rows, bits, data):
    film = np.random.default_rng(width).integers(0, 2**bits, (height, width)).astype(np.uint16)
    film[0, :2] = 2**bits - 1, 2 ** (bits - 1)
    options = {"bits": bits, "rows": rows, "t259": data.draw(st.sampled_from(list(COMPRESSED)))}
    expected = np.round(film * (255 / (2**bits - 1)))
    if -(-width * bits // 8) < 2 * width:
        assert np.abs(decode_grey(tiff_of(film, words=True, **options)) - expected).max() <= 1
    assert np.abs(decode_grey(tiff_of(film, **options)) - expected).max() <= 1


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_no_strip_or_tile_that_is_too_short_is_filled_up(bits, words, compression, chunks):
    film = FILM if bits == 8 else widened(bits)
    for drop in (1, 7, 60):
        content = tiff_of(film, bits=bits, words=words, t259=compression, drop=drop, **CHUNKS[chunks])
        with pytest.raises(BadImage):
            decode_grey(content)
    whole = tiff_of(film, bits=bits, words=words, t259=compression, **CHUNKS[chunks])
    for end in range(1, len(whole), len(whole) // 11):
        with pytest.raises(BadImage):
            decode_grey(whole[:end])


@pytest.mark.parametrize("tags", [{}, {"t262": 3, "t320": list(range(16)) * 3}])
@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_bits_than_8_that_have_8_each_are_named(bits, compression, tags):
    tags = tags and {"t262": 3, "t320": [4369 * entry for entry in range(2**bits)] * 3}
    low = FILM >> (8 - bits)
    whole = tiff_of(low, bits=bits, t259=compression, **tags)
    expected = low * (17 if tags else 255 // (2**bits - 1))
    assert np.array_equal(decode_grey(whole), expected)
    with pytest.raises(BadImage, match=f"its samples of {bits} bits are not packed"):
        decode_grey(tiff_of(low, bits=bits, words=True, t259=compression, **tags))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("samples", [1, 3])
def test_strips_that_are_lacking_are_counted(bits, samples):
    film = FILM if bits == 8 else widened(16)
    film = np.dstack([film] * samples) if samples > 1 else film
    assert np.array_equal(decode_grey(tiff_of(film, rows=7)), FILM)
    with pytest.raises(BadImage, match="it lists 3 strips with 3 sizes, expected 6 for 33x21 pixels of 33x4 a strip"):
        decode_grey(tiff_of(film, rows=7, t278=4))
    with pytest.raises(BadImage, match="it lists 6 tiles with 6 sizes, expected 9"):
        decode_grey(tiff_of(film, tile=16, t257=40))
    with pytest.raises(BadImage, match="it lists 3 strips with 2 sizes"):
        decode_grey(tiff_of(film, rows=7, t279=[10_000, 10_000]))
    with pytest.raises(BadImage, match="strips or tiles of 33x0 pixels"):
        decode_grey(tiff_of(film, t278=0))
    # The sizes are not needed where nothing is compressed.
    assert np.array_equal(decode_grey(tiff_of(film, t279=None)), FILM)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("samples", [1, 3])
def test_sizes_that_are_wrong_do_no_harm_where_the_pixels_are_whole(bits, samples, order):
    film = FILM if bits == 8 else widened(16)
    film = np.dstack([film] * samples) if samples > 1 else film
    row = 33 * samples * bits // 8
    for rows, sizes in (
        (21, [0]),
        (21, [row * 20]),
        (21, [row * 21 + 1000]),
        (21, [row * 21, 7]),
        (11, [0, 0]),
        (11, [row * 11, 9]),
        (11, [row * 10, row * 10]),
        (7, [row * 7] * 4),
        (7, [row * 7, 0, row * 7, 3, 4]),
    ):
        assert np.array_equal(decode_grey(tiff_of(film, order=order, rows=rows, t279=sizes)), FILM), (rows, sizes)


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("rows", [7, 21])
def test_surplus_strips_are_left_out(bits, rows, compression):
    film = FILM if bits == 8 else widened(16)
    # A taller film, whose directory says it has fewer rows.
    taller = np.vstack([film, film[::-1]])
    content = tiff_of(taller, rows=rows, t257=21, t259=compression)
    assert np.array_equal(decode_grey(content), FILM)


@pytest.mark.parametrize("film", [FILM, widened(16)], ids=["8", "16"])
@pytest.mark.parametrize("sizes", [[231] * 6, [231] * 3, [0, 0, 0], [0]])
def test_surplus_strips_and_wrong_sizes_of_a_big_tiff_do_no_harm(film, sizes):
    rows = 21 if len(sizes) == 1 else 7
    sizes = [size * film.itemsize for size in sizes]
    starts = [500 + 33 * film.itemsize * rows * strip for strip in range(len(sizes))]
    tags = {256: [33], 257: [21], 258: [8 * film.itemsize], 259: [1], 262: [1], 273: starts, 277: [1], 278: [rows]}
    head, beyond = struct.pack("<4sHHQQ", b"II+\0", 8, 0, 16, 9), b""
    for tag, numbers in (tags | {279: sizes}).items():
        values = struct.pack(f"<{len(numbers)}Q", *numbers)
        where = values if len(numbers) == 1 else struct.pack("<Q", 212 + len(beyond))
        beyond += values if len(numbers) > 1 else b""
        head += struct.pack("<HHQ", tag, 16, len(numbers)) + where
    content = (head + bytes(8) + beyond).ljust(500, b"\0") + film.tobytes() + film[::-1].tobytes()
    assert np.array_equal(decode_grey(content), FILM)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_strip_that_runs_into_the_next_or_the_directory_is_refused(bits):
    film = FILM if bits == 8 else widened(bits)
    whole = tiff_of(film, bits=bits)
    size = -(-33 * bits // 8) * 21
    # The directory behind the pixels, of which 60 bytes are lacking.
    pixels, tags = whole[-size:-60], whole[8:-size]
    moved = bytearray(whole[:4] + struct.pack("<I", 8 + len(pixels)) + pixels + tags + bytes(100))
    entry = 8 + len(pixels) + 2
    for place in range(entry, entry + 12 * struct.unpack_from("<H", moved, entry - 2)[0], 12):
        (tag,) = struct.unpack_from("<H", moved, place)
        if tag in (273, 279):
            struct.pack_into("<I", moved, place + 8, 8 if tag == 273 else size - 60)
    with pytest.raises(BadImage, match=f"strip 1 has {size - 60} bytes, expected {size}"):
        decode_grey(bytes(moved))


def test_a_size_that_is_too_large_for_packed_samples_is_that_of_packed_samples():
    tall = np.tile(FILM, (9, 9))
    film, rows = widened(12, tall), len(tall)
    packed, words = -(-tall.shape[1] * 12 // 8) * rows, tall.shape[1] * 2 * rows
    whole = tiff_of(film, bits=12)
    for size in (packed + 1000, words - 1, 2**31):
        content = tiff_of(film, bits=12, t279=size) + bytes(1000)
        assert np.array_equal(decode_grey(content), decode_grey(whole)), size
    for size in (0, packed - 100):
        assert np.array_equal(decode_grey(tiff_of(film, bits=12, t279=size)), decode_grey(whole))
        with pytest.raises(BadImage, match="without right StripByteCounts"):
            decode_grey(tiff_of(film, bits=12, words=True, t279=size))
    with pytest.raises(BadImage, match=f"packed samples have {packed}, and samples of 16 bits each {words}"):
        decode_grey(tiff_of(film, bits=12, words=True, drop=1000))


def test_planes_have_strips_of_their_own():
    colours = np.dstack([FILM, FILM[::-1], FILM[:, ::-1]])
    content = tiff_of(colours, rows=7, t284=2)
    assert np.array_equal(decode_colour(content), colours)
    with pytest.raises(BadImage, match="it lists 3 strips with 3 sizes, expected 9"):
        decode_grey(tiff_of(colours, rows=7, t284=2, t273=[8, 9, 10], t279=[7 * 33] * 3))


@pytest.mark.parametrize("order", ["<", ">"])
def test_samples_of_an_undefined_format_are_read_as_unsigned(order):
    for film in (FILM, widened(16), np.dstack([FILM] * 3), np.dstack([widened(16)] * 3)):
        samples = film.shape[2] if film.ndim == 3 else 1
        assert np.array_equal(decode_grey(tiff_of(film, order=order, t339=[4] * samples)), FILM)
    assert np.abs(decode_grey(tiff_of(widened(12), bits=12, order=order, t339=4)) - FILM.astype(int)).max() <= 1


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_grey_and_alpha_of_8_bits_become_grey(extra):
    opaque = np.full_like(FILM, 255)
    content = tiff_of(np.dstack([FILM, opaque]), t262=1, t338=extra)
    assert np.array_equal(decode_grey(content), FILM)
    assert np.array_equal(decode_colour(content), np.dstack([FILM] * 3))


@pytest.mark.parametrize("content", [tiff_of(FILM), tiff_of(FILM, order=">"), encoded(FILM, "TIFF", big_tiff=True)])
def test_a_file_that_is_cut_before_the_end_of_its_directory_is_named(content):
    late = bytearray(content)
    order = "<" if content.startswith(b"II") else ">"
    place, size = (8, "Q") if b"+" in content[2:4] else (4, "I")
    struct.pack_into(order + size, late, place, 5000)
    with pytest.raises(BadImage, match=f"truncated TIFF: its directory would begin at byte 5000 of {len(late)}"):
        decode_grey(bytes(late))
    (first,) = struct.unpack_from(order + size, content, place)
    with pytest.raises(BadImage, match=f"truncated TIFF: its directory would end at byte .* of {first + 20}"):
        decode_grey(content[: first + 20])


def test_a_size_that_is_missing_is_named():
    with pytest.raises(BadImage, match=r"damaged TIFF: tag 257 \(ImageLength\) is missing"):
        decode_grey(tiff_of(FILM, t257=None, t278=21))


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("values", [1, 2, 4])
def test_a_palette_must_have_three_values_for_each_sample(bits, values):
    low = FILM >> (8 - bits)
    colours = [65535 * entry // (2**bits - 1) for entry in range(2**bits)]
    assert (
        np.abs(decode_grey(tiff_of(low, bits=bits, t262=3, t320=colours * 3)) - low * (255 / (2**bits - 1))).max() <= 1
    )
    with pytest.raises(BadImage, match=f"its palette has {values * 2**bits} values, expected {3 * 2**bits}"):
        decode_grey(tiff_of(low, bits=bits, t262=3, t320=colours * values))
    with pytest.raises(BadImage, match="its palette has 0 values"):
        decode_grey(tiff_of(low, bits=bits, t262=3))


def test_colours_of_fewer_samples_than_luminances_need_fewer_bytes():
    # Blocks of two by two luminances and a pair of colours: 9 x 9 pixels make 25 blocks.
    options = {"t262": 6, "t258": [8, 8, 8], "t277": 3, "t530": [2, 2], "t279": 150}
    grey = np.zeros((9, 9), np.uint8)
    with pytest.raises(BadImage, match="truncated TIFF: strip 1 would end at byte"):
        decode_grey(tiff_of(grey, **options))
