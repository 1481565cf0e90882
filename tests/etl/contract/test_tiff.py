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
    with pytest.raises(BadImage, match="strip 2 has 9 bytes, expected"):
        decode_grey(tiff_of(film, rows=11, t279=[11 * 33 * samples * bits // 8, 9]))
    with pytest.raises(BadImage, match="it lists 3 strips with 2 sizes"):
        decode_grey(tiff_of(film, rows=7, t279=[10_000, 10_000]))
    with pytest.raises(BadImage, match="strips or tiles of 33x0 pixels"):
        decode_grey(tiff_of(film, t278=0))
    # The sizes are not needed where nothing is compressed.
    assert np.array_equal(decode_grey(tiff_of(film, t279=None)), FILM)


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
    with pytest.raises(BadImage, match="strip 1 has 149 bytes, expected 150"):
        decode_grey(tiff_of(grey, **options | {"t279": 149}))
    with pytest.raises(BadImage, match="truncated TIFF: strip 1 would end at byte"):
        decode_grey(tiff_of(grey, **options))
