import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from etl.images import BadImage, decode_grey, to_square
from tests.conftest import png

GREY = st_np.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(GREY)
def test_grey_is_decoded_exactly(image):
    assert np.array_equal(decode_grey(png(image)), image)


@given(GREY)
def test_rgba_with_equal_channels_is_the_same_grey(image):
    opaque = np.full_like(image, 255)
    assert np.array_equal(decode_grey(png(np.dstack([image, image, image, opaque]))), image)


def test_sixteen_bits_are_scaled_over_their_full_range():
    image = np.array([[0, 257, 65535, 32768, 128, 129]], dtype=np.uint16)
    assert decode_grey(png(image)).tolist() == [[0, 1, 255, 128, 0, 1]]


def test_a_palette_becomes_luminance():
    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    pixels = zlib.compress(b"\x00\x00\x01")
    chunks = [(b"IHDR", header), (b"PLTE", b"\xff\x00\x00\x07\x07\x07"), (b"IDAT", pixels), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    assert decode_grey(b"\x89PNG\r\n\x1a\n" + body).tolist() == [[76, 7]]


@pytest.mark.parametrize("channels", [1, 4])
@given(cut=st.integers(0, 10_000))
def test_no_truncated_file_is_accepted(channels, cut):
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, channels), dtype=np.uint8)
    whole = png(noise)
    with pytest.raises(BadImage):
        decode_grey(whole[: cut % (len(whole) - 12)])


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_changes_pixels_unnoticed(position, bit):
    image = np.random.default_rng(2).integers(0, 256, (24, 24), dtype=np.uint8)
    damaged = bytearray(png(image))
    damaged[position % len(damaged)] ^= 1 << bit
    try:
        decoded = decode_grey(bytes(damaged))
    except BadImage:
        return
    assert np.array_equal(decoded, image)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is text", "not a PNG"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 60_000, 60_000) + b"\x08\x00\x00\x00\x00abcd",
            "large",
        ),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 0, 5) + b"\x08\x00\x00\x00\x00abcd", "no pixels"),
    ],
)
def test_what_is_no_image_says_why(content, reason):
    with pytest.raises(BadImage, match=reason):
        decode_grey(content)


def test_a_colour_profile_prints_nothing(capfd):
    rgba = png(np.zeros((4, 4, 4), np.uint8))
    profile = b"ICC Profile\x00\x00" + zlib.compress(b"x" * 200)
    chunk = struct.pack(">I", len(profile)) + b"iCCP" + profile + struct.pack(">I", zlib.crc32(b"iCCP" + profile))
    decode_grey(rgba[:33] + chunk + rgba[33:])
    assert capfd.readouterr().err == ""


@given(GREY, st.integers(1, 50))
def test_squares_have_their_size_and_stay_in_range(image, size_px):
    square = to_square(image, size_px)
    assert square.shape == (size_px, size_px)
    assert square.dtype == np.uint8
    assert square.max() <= image.max()


def test_a_tall_image_is_padded_not_stretched():
    tall = np.full((40, 20), 200, np.uint8)
    square = to_square(tall, 40)
    assert np.array_equal(square[:, 10:30], tall)
    assert square[:, :10].max() == square[:, 30:].max() == 0


def test_shrinking_averages_areas():
    image = np.kron(np.array([[10, 20], [30, 40]], np.uint8), np.ones((8, 8), np.uint8))
    assert to_square(image, 2).tolist() == [[10, 20], [30, 40]]
    checkers = np.indices((16, 16)).sum(axis=0) % 2 * 200
    assert to_square(checkers.astype(np.uint8), 8).tolist() == [[100] * 8] * 8
    assert cv2.getNumThreads() == 1
