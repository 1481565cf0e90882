"""Films of 16 bits whose black is not 0, as signed pixels become when they are saved as unsigned ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.pixels import BadImage
from tests.etl.image_files import png_of, tiff_of

RAMP = np.arange(256, dtype=np.uint16).reshape(8, 32)


def widened(bits: int) -> np.ndarray:
    return (RAMP.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)


def by_imagej(pixels: np.ndarray, words: str = "cf=0\nc0=-32768.0\nc1=1.0\nvunit=Gray Value\n", **tags) -> bytes:
    """A TIFF as ImageJ saves films of signed pixels, which it shifts by 32768."""
    description = f"ImageJ=1.53t\nunit=mm\n{words}".encode() + b"\0"
    return tiff_of(pixels, t270=description, **tags)


CONTAINERS = {
    "PNG": png_of,
    "PNG, RGB": lambda film: png_of(np.dstack([film] * 3)),
    "TIFF": tiff_of,
    "TIFF, white is zero": lambda film: tiff_of(film, t262=0),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("offset", [16384, 32768, 49152])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_narrow_range_is_refused_at_every_offset(container, offset, bits):
    content = CONTAINERS[container](widened(bits) + np.uint16(offset))
    for decode in (decode_grey, decode_colour):
        with pytest.raises(BadImage, match=r"few bits: .*, or .*16 to keep the(ir)? greys"):
            decode(content)
    assert np.ptp(decode_grey(content, 16)) <= 64


@pytest.mark.parametrize("container", ["PNG", "TIFF"])
def test_black_at_half_of_the_range_is_refused(container):
    with pytest.raises(
        BadImage, match="few bits: but for 1% of the pixels, the greys are from 32896 to 6540[67] of 65535"
    ):
        decode_grey(CONTAINERS[container](widened(15) + np.uint16(32768)))
    assert decode_grey(CONTAINERS[container](widened(15) + np.uint16(32768)), 16).min() == 128


def test_a_few_pixels_do_not_hide_the_offset_and_are_no_offset():
    film = np.random.default_rng(0).integers(0, 16384, (300, 300)).astype(np.uint16)
    shifted = film + np.uint16(32768)
    shifted[3, 3:9], shifted[4, 3:9] = 0, 65535
    with pytest.raises(BadImage, match="few bits"):
        decode_grey(png_of(shifted))
    # Collimation and a marker beside a film of a low contrast, and a film that is one grey but for a marker.
    shifted[:9] = 0
    assert np.array_equal(decode_grey(png_of(shifted)), np.round(shifted / 257))
    plain = np.full((300, 300), 40_000, np.uint16)
    plain[0, 0] = 65535
    assert np.array_equal(decode_grey(png_of(plain)), np.round(plain / 257))


def test_greys_of_8_bits_and_of_a_declared_range_are_not_judged():
    assert decode_grey(png_of((RAMP // 8 + 100).astype(np.uint8))).min() == 100
    assert decode_grey(png_of(widened(10) + np.uint16(2048)), 12).min() == 128


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_imagej_says_by_how_much_it_shifted_signed_pixels(order, white_is_zero):
    def shown(bits: int, words: str, grey_bits: int = 0) -> np.ndarray:
        film = 2**bits - 1 - widened(bits) if white_is_zero else widened(bits)
        options = {"order": order, "t262": int(not white_is_zero)}
        return decode_grey(by_imagej(film + np.uint16(32768), words, **options), grey_bits)

    shifted = "cf=0\nc0=-32768.0\nc1=1.0\n"
    for content in (
        shown(14, f"{shifted}min=0.0\nmax=16383.0\n"),
        shown(12, f"{shifted}min=0.0\nmax=4095.0\n"),
        shown(14, shifted.replace(".0", ""), 14),
        shown(15, shifted),
        shown(15, shifted.replace("cf=0\n", "") + "min=100.0\nmax=9000.0\n"),
    ):
        assert np.abs(content - RAMP.astype(int)).max() <= 1
    if not white_is_zero:
        with pytest.raises(BadImage, match="the brightest grey is 16383 of 65535, as if 14 bits were stored in 16"):
            shown(14, shifted)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "c0=-32768.0\n",
        "c0=-1000.0\nc1=1.0\n",
        "c0=-32768.0\nc1=2.0\n",
        "cf=21\nc0=-32768.0\nc1=1.0\n",
        "c0=x\nc1=1",
    ],
)
def test_another_calibration_is_not_followed(words):
    with pytest.raises(BadImage, match="few bits"):
        decode_grey(by_imagej(widened(14) + np.uint16(32768), words))
    assert np.array_equal(decode_grey(by_imagej(widened(16), words)), RAMP)


def test_negative_pixels_are_not_made_black():
    assert np.array_equal(decode_grey(by_imagej(widened(16))), RAMP)
    with pytest.raises(BadImage, match="few bits"):
        decode_grey(by_imagej(widened(13) + np.uint16(32000)))


@given(st.integers(8, 16), st.integers(0, 65535), st.integers(0, 99))
def test_a_film_is_refused_or_keeps_a_quarter_of_the_contrast(bits, offset, seed):
    film = np.random.default_rng(seed).integers(0, 2**bits, (9, 20)).astype(np.uint16)
    film = np.minimum(film.astype(int) + offset, 65535).astype(np.uint16)
    try:
        grey = decode_grey(png_of(film))
    except BadImage as reason:
        assert str(reason).startswith("few bits: ") and (np.ptp(film) < 16384 or film.min() >= 32768)
    else:
        assert np.ptp(film) >= 16384 or np.ptp(grey) == 0
