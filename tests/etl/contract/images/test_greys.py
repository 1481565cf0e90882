"""Greys are scaled over the range that a file uses, or the film is refused by the name of its range."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.greys import MIN_BRIGHTEST, to_8_bits
from etl.contract.images.pixels import BadImage
from tests.etl.image_files import chunk, encoded, png_of, raw_png, tiff_of

RAMP = np.arange(256, dtype=np.uint16).reshape(8, 32)


def widened(bits: int, films: np.ndarray = RAMP) -> np.ndarray:
    """0..255 to 0..2**bits - 1."""
    return (films.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)


def significant(*bits: int) -> bytes:
    return chunk(b"sBIT", bytes(bits))


@given(st_np.arrays(np.uint16, (3, 4)), st.integers(1, 16))
def test_scaling_rounds_to_the_nearest_grey(image, bits):
    white = 2**bits - 1
    image &= white
    assert np.abs(to_8_bits(image, white) - image * (255 / white)).max() <= 0.5


CONTAINERS = {
    "PNG": png_of,
    "TIFF": tiff_of,
    "TIFF, big endian": lambda film: tiff_of(film, order=">"),
    "TIFF, white is zero": lambda film: tiff_of(film, t262=0),
    "TIFF, deflated": lambda film: tiff_of(film, t259=8),
    "PNG, RGB": lambda film: png_of(np.dstack([film] * 3)),
    "PNG, RGBA": lambda film: png_of(np.dstack([film, film, film, np.full_like(film, 65535)])),
    "PNG, grey and alpha": lambda film: png_of(np.dstack([film, np.full_like(film, 65535)])),
    "TIFF, RGB": lambda film: tiff_of(np.dstack([film] * 3)),
    "TIFF, RGBA": lambda film: tiff_of(np.dstack([film, film, film, np.full_like(film, 65535)]), t338=2),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_few_bits_in_16_are_refused_by_name_or_scaled_by_the_setting(container, bits):
    content = CONTAINERS[container](widened(bits))
    for decode in (decode_grey, decode_colour):
        with pytest.raises(
            BadImage,
            match=rf"few bits: the brightest grey is {2**bits - 1} of 65535, as if {bits} bits were stored in 16",
        ):
            decode(content)
    shown = 255 - RAMP if container.endswith("zero") else RAMP
    assert np.abs(decode_grey(content, bits).astype(int) - shown).max() <= 1
    assert np.abs(decode_colour(content, bits).astype(int) - shown[..., None]).max() <= 1
    as_it_is = decode_grey(content, 16)
    assert as_it_is.min() >= 191 if container.endswith("zero") else as_it_is.max() <= 64


@pytest.mark.parametrize("container", CONTAINERS)
def test_films_of_other_bits_than_those_of_the_setting_are_not_made_dark(container):
    full = CONTAINERS[container](widened(16))
    for grey_bits in (0, 8, 12, 15, 16):
        assert np.array_equal(decode_grey(full, grey_bits), decode_grey(full))
    with pytest.raises(BadImage, match=r"the brightest grey is 16383 of 65535, as if 14 bits were stored in 16"):
        decode_grey(CONTAINERS[container](widened(14)), 12)
    with pytest.raises(BadImage, match=r"the brightest grey is 4095 of 16383, as if 12 bits were stored in 14"):
        decode_grey(CONTAINERS[container](widened(12)), 14)


def is_dark(film: np.ndarray, white: float) -> bool:
    """Whether 99.5% of the pixels below the brightest grey, if these are of several greys, are below a quarter."""
    others = film[film < film.max()] if film.max() >= white / 4 else film
    return len(np.unique(others)) > 1 and np.mean(others >= white / 4) <= 0.005


@given(st_np.arrays(np.uint16, (2, 3)), st.sampled_from([0, *range(8, 17)]), st.integers(0, 16), st.booleans())
def test_a_film_is_refused_or_reaches_a_quarter_of_white(film, grey_bits, sbit, marked):
    for bits in range(1, 17):
        low = film >> (16 - bits)
        if marked:
            low[0, 0] = 65535
        content = png_of(low, before=significant(sbit) if sbit else b"")
        ranges = [2**said - 1 for said in (sbit, grey_bits, 16) if 2**said > max(low.max(), 1)]
        used = [white for white in ranges if grey_bits == 16 or not is_dark(low, white)]
        try:
            grey = decode_grey(content, grey_bits)
        except BadImage as reason:
            # For offsets, see test_grey_offsets.py.
            assert str(reason).startswith("few bits: ") and (not used or "an offset" in str(reason))
            continue
        assert any(np.abs(grey - low * (255 / white)).max() <= 0.5 + 1e-9 for white in used)


MARKED = {
    "a letter": (slice(20), slice(40), 65535),
    "a hot pixel": (3, 3, 65535),
    "two hot pixels": (3, slice(3, 5), [60_000, 65535]),
    "a letter that is not white": (slice(20), slice(40), 40_000),
    "a shutter": (slice(None), slice(150), 65535),
    "the soft edges of a letter": (slice(20), slice(40), np.linspace(16384, 65535, 40).astype(np.uint16)),
}


@pytest.mark.parametrize("marker", MARKED)
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("container", ["PNG", "PNG, RGB", "PNG, RGBA", "TIFF", "TIFF, white is zero"])
def test_a_marker_does_not_hide_few_bits(container, bits, marker):
    film = np.random.default_rng(0).integers(0, 2**bits, (500, 500)).astype(np.uint16)
    rows, columns, grey = MARKED[marker]
    film[rows, columns] = grey
    content = CONTAINERS[container](65535 - film if container.endswith("zero") else film)
    for grey_bits in (0, 8, bits):
        with pytest.raises(BadImage, match=rf"but for markers, .* of 65535, as if {bits} bits were stored in 16"):
            decode_grey(content, grey_bits)
    assert decode_grey(content, 16).max() == round(film.max() / 257)
    # The file's own word is not followed either where pixels exceed it.
    for content in (png_of(film, before=significant(bits)), tiff_of(film, t281=2**bits - 1)):
        with pytest.raises(BadImage, match="but for markers"):
            decode_grey(content)


@pytest.mark.parametrize("marker", MARKED)
def test_a_marker_on_a_film_of_the_whole_range_changes_nothing(marker):
    film = np.random.default_rng(0).integers(0, 40_000, (500, 500)).astype(np.uint16)
    rows, columns, grey = MARKED[marker]
    film[rows, columns] = grey
    for content in (png_of(film), tiff_of(film), tiff_of(65535 - film, t262=0)):
        assert np.array_equal(decode_grey(content), np.round(film / 257))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("stored_in", [16, 14])
def test_few_bits_below_a_white_of_zero_are_refused_by_name_or_scaled(bits, stored_in):
    """Samples of 65535 - v, say, where v has 12 bits."""
    if bits == stored_in:
        return
    white, film = 2**stored_in - 1, widened(bits)

    def content(**tags):
        return tiff_of(white - film, bits=stored_in, t262=0, **tags)

    with pytest.raises(BadImage, match=f"as if {bits} bits were stored in {stored_in}: .* set --etl.grey_bits {bits}"):
        decode_grey(content())
    assert np.abs(decode_grey(content(), bits) - RAMP.astype(int)).max() <= 1
    if bits > stored_in - 7:
        assert np.abs(decode_grey(content(t281=2**bits - 1)) - RAMP.astype(int)).max() <= 1
    assert decode_grey(content(), 16).max() <= 64


@pytest.mark.parametrize("brightest", [16384, 20000, 65535])
def test_a_film_that_reaches_a_quarter_of_the_range_is_taken_as_it_is(brightest):
    film = np.array([[0, brightest]], np.uint16)
    assert decode_grey(png_of(film)).tolist() == [[0, round(brightest / 257)]]
    with pytest.raises(BadImage, match="14 bits were stored in 16"):
        decode_grey(png_of(film // (brightest // 16383 + 1)))


def test_eight_bits_and_films_of_one_grey_are_never_said_to_have_few():
    assert decode_grey(png_of(np.array([[0, 9]], np.uint8))).tolist() == [[0, 9]]
    assert decode_grey(png_of(np.array([[0, 9]], np.uint8)), 12).tolist() == [[0, 9]]
    assert decode_grey(encoded(np.array([[0, 9]], np.uint8), "TIFF"), 12).tolist() == [[0, 9]]
    for grey in (0, 300):
        assert decode_grey(png_of(np.full((2, 2), grey, np.uint16))).tolist() == [[grey // 257] * 2] * 2


@pytest.mark.parametrize("container", ["PNG", "PNG, RGB", "PNG, RGBA", "TIFF", "TIFF, white is zero"])
@pytest.mark.parametrize("background", [0, 300])
def test_a_small_bright_field_on_one_grey_is_taken_as_it_is(container, background):
    film = np.full((200, 200), background, np.uint16)
    film[:12, :12] = np.linspace(20_000, 60_000, 144).reshape(12, 12)  # 0.36%
    content = CONTAINERS[container](65535 - film if container.endswith("zero") else film)
    for grey_bits in (0, 12, 16):
        assert np.array_equal(decode_grey(content, grey_bits), np.round(film / 257))
    # On two greys it may be the marker of a dark film; the setting that the reason names leads out.
    film[100:] += 1
    content = CONTAINERS[container](65535 - film if container.endswith("zero") else film)
    with pytest.raises(BadImage, match="but for markers, .* or set --etl.grey_bits 16 to keep the greys as they are"):
        decode_grey(content)
    assert np.array_equal(decode_grey(content, 16), np.round(film / 257))


def test_no_real_film_is_near_the_limit(nih_sample):
    paths = sorted(nih_sample.glob("images*/*.png"))[::4]
    films = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    assert len(films) > 100
    assert min(np.percentile(film[film < film.max()], 99.5) for film in films) > 2 * MIN_BRIGHTEST * 255
    # As MONOCHROME1 has it: there is black in all.
    assert max(np.percentile(film, 0.5) for film in films) < 2 * MIN_BRIGHTEST * 255


@pytest.mark.parametrize("bits", [1, 5, 7, 8, 10, 12, 14, 15])
def test_the_significant_bits_of_a_png_are_followed(bits):
    kinds = [np.uint16] if bits > 7 else [np.uint8, np.uint16]
    for kind in kinds:
        low = widened(bits).astype(kind)
        depth = 8 * low.itemsize
        # As the standard has it: scaled up to the depth, by moving the bits or by repeating them.
        moved = low << (depth - bits)
        for film, notes in (
            (low, significant(bits)),
            (moved, significant(bits)),
            (widened(depth, low * (255 / (2**bits - 1))).astype(kind), significant(bits)),
            (np.dstack([low] * 3), significant(bits, bits, bits)),
            (np.dstack([low, np.full_like(low, 2**depth - 1)]), significant(bits, depth)),
            (np.dstack([low, low, low, np.full_like(low, 2**depth - 1)]), significant(bits, bits, bits, depth)),
        ):
            expected = np.round(low * (255 / (2**bits - 1)))
            if film is moved:
                expected = np.round(moved * (255 / (2**depth - 1)))
            assert np.abs(decode_grey(png_of(film, before=notes)) - expected).max() <= 1
            assert np.abs(decode_colour(png_of(film, before=notes)) - expected[..., None]).max() <= 1


def test_significant_bits_that_say_nothing_are_ignored():
    film = np.array([[0, 10, 200]], np.uint8)
    for grey_bits in (0, 12):
        # Scaled up from 4 bits, as the standard has it.
        assert decode_grey(png_of(film, before=significant(4)), grey_bits).tolist() == film.tolist()
    for notes in (significant(0), significant(8), significant(9), significant(255), chunk(b"sBIT", b"")):
        assert decode_grey(png_of(film, before=notes)).tolist() == film.tolist()
    # The bits of a palette are those of its colours.
    palette = chunk(b"PLTE", bytes([0] * 3 + [15] * 3 + [7] * 3))
    rows = b"\0\0\1\2"
    assert decode_grey(raw_png(3, 1, 8, 3, rows, before=significant(4, 4, 4) + palette)).tolist() == [[0, 255, 119]]
    # Two significant bits of four: 0 to 3 of 15.
    assert decode_grey(raw_png(4, 1, 4, 0, b"\0\x01\x23", before=significant(2))).tolist() == [[0, 85, 170, 255]]


def test_a_range_that_is_too_wide_even_for_the_significant_bits_is_refused_by_name():
    with pytest.raises(BadImage, match=r"the brightest grey is 1023 of 16383, as if 10 bits were stored in 14"):
        decode_grey(png_of(widened(10), before=significant(14)))
    with pytest.raises(BadImage, match=r"the brightest grey is 1023 of 4095, as if 10 bits were stored in 12"):
        decode_grey(tiff_of(widened(10), bits=12))
    assert decode_grey(tiff_of(widened(10), bits=12), 10).max() == 255
    # Significant are 16 bits of 16: that is what the few bits contradict.
    with pytest.raises(BadImage, match=r"12 bits were stored in 16"):
        decode_grey(png_of(widened(12), before=significant(16)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_greys_of_a_tiff_are_those_that_its_tags_say(bits, white_is_zero, order):
    film = widened(bits).astype(np.uint8 if bits == 8 else np.uint16)
    stored = 2**bits - 1 - film if white_is_zero else film
    for options in ({}, {"t259": 8}):
        content = tiff_of(stored, bits=bits, order=order, t262=int(not white_is_zero), **options)
        assert np.abs(decode_grey(content) - RAMP.astype(int)).max() <= 1
    if bits in (10, 12, 14):
        # Not packed, as the standard wants them.
        content = tiff_of(stored, bits=bits, order=order, words=True, t262=int(not white_is_zero))
        assert np.abs(decode_grey(content) - RAMP.astype(int)).max() <= 1


def test_an_odd_width_of_packed_bits_is_read():
    film = widened(12)[:, :31]
    assert np.abs(decode_grey(tiff_of(film, bits=12)) - RAMP[:, :31].astype(int)).max() <= 1


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "lzma", "zstd"])
def test_every_compression_of_16_bits_is_read(compression):
    film = widened(16)
    assert np.array_equal(decode_grey(encoded(film, "TIFF", compression=compression)), RAMP)
    assert np.array_equal(decode_grey(encoded(film, "TIFF", compression=compression, big_tiff=True)), RAMP)


@pytest.mark.parametrize("scale", [1, 257])
def test_the_colours_of_a_palette_have_8_or_16_bits(scale):
    film = np.array([[0, 1, 2, 255]], np.uint8)
    colours = [scale * (255 - entry) for _ in range(3) for entry in range(256)]
    content = tiff_of(film, t262=3, t320=colours)
    assert decode_grey(content).tolist() == [[255, 254, 253, 0]]
    assert decode_colour(content)[0, :, 1].tolist() == [255, 254, 253, 0]


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_the_largest_sample_of_8_bits_ends_their_range(white_is_zero):
    film, greys = np.array([[0, 63, 127]], np.uint8), np.array([[0, 126, 255]])
    content = tiff_of(film, t262=int(not white_is_zero), t281=127)
    assert decode_grey(content).tolist() == (255 - greys if white_is_zero else greys).tolist()
    # That it is a fact about these pixels only, or wrong, shows where it ends no range.
    for largest in (126, 100, 255):
        assert decode_grey(tiff_of(film, t281=largest)).tolist() == film.tolist()
    assert decode_grey(tiff_of(film, t281=63)).tolist() == film.tolist()


def test_the_largest_sample_of_a_tiff_ends_its_range():
    assert np.abs(decode_grey(tiff_of(widened(12), t281=4095)) - RAMP.astype(int)).max() <= 1
    # By the standard it is no more than a fact about these pixels.
    assert decode_grey(tiff_of(np.array([[0, 30000]], np.uint16), t281=30000)).tolist() == [[0, 117]]
    assert decode_grey(tiff_of(np.array([[0, 30000]], np.uint16), t281=4095)).tolist() == [[0, 117]]


FILM = widened(16)
UNREAD = {
    "signed": (tiff_of(FILM, t339=2), "16 bits a sample, signed"),
    "signed, 8 bits": (tiff_of(FILM.astype(np.uint8), t339=2), "8 bits a sample, signed"),
    "floating-point": (tiff_of(np.zeros((2, 2), np.uint32), bits=32, words=True, t339=3), "32 bits a sample, floating"),
    "32 bits": (tiff_of(np.zeros((2, 2), np.uint32), bits=32, words=True), "32 bits a sample, unsigned"),
    "11 bits": (tiff_of(widened(11), bits=11), "11 bits a sample"),
    "grey and alpha": (tiff_of(np.dstack([FILM, FILM]), t262=1, t338=2), "2 samples a pixel"),
    "planes": (tiff_of(np.dstack([FILM] * 3), t284=2), r"separate planes \(PlanarConfiguration 2\)"),
    "Lab": (tiff_of(np.dstack([FILM.astype(np.uint8)] * 3), t262=8), "photometric interpretation 8"),
    "palette of 16 bits": (tiff_of(FILM, t262=3), "photometric interpretation 3"),
    "another interpretation": (tiff_of(FILM.astype(np.uint8), t262=32844), "photometric interpretation 32844"),
    "a compression": (tiff_of(FILM, t259=34712), "compression .?34712"),
    "a compression of 8 bits": (tiff_of(FILM.astype(np.uint8), t259=34712), "compression 34712"),
    "no interpretation": (tiff_of(FILM, t262=None), "does not say whether 0 is black or white"),
    "12 bits, JPEG": (
        b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda" + bytes(40),
        "^a JPEG of 12 bits is not read: save",
    ),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_a_kind_of_pixels_that_is_not_read_is_named_without_addresses(kind, capfd):
    content, name = UNREAD[kind]
    with pytest.raises(BadImage, match=name) as caught:
        decode_grey(content)
    assert "0x" not in str(caught.value) and "BytesIO" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("deflated", [False, True])
def test_no_cut_of_a_deep_tiff_is_accepted(bits, deflated, capfd):
    film = np.random.default_rng(0).integers(0, 2**bits, (16, 16)).astype(np.uint16)
    content = tiff_of(film, bits=bits, **({"t259": 8} if deflated else {}))
    for end in range(1, len(content), 9):
        with pytest.raises(BadImage):
            decode_grey(content[:end])
    assert capfd.readouterr() == ("", "")
