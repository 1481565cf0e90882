"""JPEG files with missing or damaged pixels are refused; what only looks like damage is not."""

import io
import re
import struct

import cv2
import kornia_rs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.jpeg import decode_jpeg
from etl.contract.images.pixels import BadImage
from tests.etl.image_files import encoded

# Smooth noise, whose bytes are spread over the file.
NOISE = np.random.default_rng(0).normal(128, 90, (240, 200, 3))
FILM = cv2.GaussianBlur(NOISE, (0, 0), 1.5).clip(0, 255).astype(np.uint8)
FILES = {
    (colour, progressive): encoded(FILM if colour else FILM[..., 0], "JPEG", quality=90, progressive=progressive)
    for colour in (False, True)
    for progressive in (False, True)
}
KINDS = pytest.mark.parametrize("kind", FILES)


def pillow(content: bytes, mode: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)).convert(mode))


def grey_of(content: bytes) -> np.ndarray:
    """The grey of Pillow's colours, as of any other kind of file."""
    film = Image.open(io.BytesIO(content))
    return pillow(content, "L") if film.mode == "L" else cv2.cvtColor(pillow(content, "RGB"), cv2.COLOR_RGB2GRAY)


def with_height(content: bytes, height: int) -> bytes:
    frame = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    return content[: frame + 5] + struct.pack(">H", height) + content[frame + 7 :]


@KINDS
@pytest.mark.parametrize("sampling", [0, 1, 2])
@given(height=st.integers(1, 40), width=st.integers(1, 40), quality=st.integers(1, 100))
def test_pixels_are_those_of_pillow(kind, sampling, height, width, quality):
    colour, progressive = kind
    film = FILM[:height, :width] if colour else FILM[:height, :width, 0]
    content = encoded(film, "JPEG", quality=quality, progressive=progressive, subsampling=sampling)
    assert np.array_equal(decode_grey(content), grey_of(content))
    assert np.array_equal(decode_colour(content), pillow(content, "RGB"))


@pytest.mark.parametrize("sampling", [0x411111, 0x221111, 0x211111, 0x121111, 0x111111])
def test_every_sampling_of_colours_is_read(sampling):
    content = cv2.imencode(".jpg", FILM, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])[1].tobytes()
    assert np.array_equal(decode_grey(content), grey_of(content))


@pytest.mark.parametrize("factors", [0x11, 0x12, 0x21, 0x22, 0x41])
def test_every_sampling_of_greys_is_read(factors):
    content = bytearray(FILES[False, False])
    content[content.index(b"\xff\xc0") + 11] = factors
    assert np.array_equal(decode_grey(bytes(content)), pillow(bytes(content), "L"))


@pytest.mark.parametrize("options", [{"restart_marker_rows": 1}, {"optimize": True}, {"keep_rgb": True}])
def test_other_options_of_writers_are_read(options):
    for film in (FILM, FILM[..., 0]):
        content = encoded(film, "JPEG", quality=90, **options)
        assert np.array_equal(decode_colour(content), pillow(content, "RGB"))


@KINDS
def test_damage_in_the_middle_is_refused(kind, capfd):
    content = FILES[kind]
    start = len(content) // 2
    damages = {
        "zeros": content[:start] + bytes(2000) + content[start + 2000 :],
        "a piece is lacking": content[:start] + content[start + 2000 :],
        "cut and closed": content[:start] + b"\xff\xd9",
        "zeros to the end": content[:start] + bytes(len(content) - start - 2) + b"\xff\xd9",
        "twice as high": with_height(content, 480),
        "half as high": with_height(content, 120),
        "a foreign marker": content[:start] + b"\xff\xe5\0\4ab" + content[start:],
    }
    for name, damaged in damages.items():
        for decode in (decode_grey, decode_colour):
            with pytest.raises(BadImage, match="(damaged|truncated) JPEG"):
                pytest.fail(f"{name}: {decode(damaged).shape}")
    assert capfd.readouterr() == ("", "")


@KINDS
def test_no_cut_is_accepted_though_it_is_closed(kind):
    content = FILES[kind]
    # Between the scans of a progressive file, too.
    marks = [mark.start() + step for mark in re.finditer(rb"\xff[\xc4\xda]", content) for step in (0, 1, 2, 8)]
    for end in (*range(2, len(content) - 40, 101), *marks):
        for tail in (b"", b"\xff\xd9"):
            with pytest.raises(BadImage):
                decode_grey(content[:end] + tail)


@KINDS
def test_what_pixels_do_not_need_may_be_damaged(kind):
    content = FILES[kind]
    whole = decode_grey(content)
    profile = b"\xff\xe2\0\x20ICC_PROFILE\0\x07\x03" + bytes(16)
    for harmless in (
        content[:20] + b"abc" + content[20:],
        content[:20] + bytes(500) + content[20:],
        content[:20] + profile + content[20:],
        content[:11] + b"\x07\x09" + content[13:],
        content[:20] + b"\xff\xfe\0\4ab" + content[20:],
        content + b"junk after the end",
    ):
        assert np.array_equal(decode_grey(harmless), whole)


def test_grey_pictures_in_colour_stay_as_they_are():
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    content = encoded(np.dstack([greys] * 3), "JPEG", quality=100, keep_rgb=True)
    assert np.array_equal(decode_grey(content), pillow(content, "L"))
    assert np.array_equal(decode_grey(content), decode_colour(content)[..., 0])


@pytest.mark.parametrize("file", [FILES[True, False], FILES[True, False][:20] + b"abc" + FILES[True, False][20:]])
def test_lack_of_memory_is_not_damage(file, monkeypatch):
    def raises_no_memory(*arguments):
        raise MemoryError

    monkeypatch.setattr(kornia_rs.io, "decode_image_jpegturbo", raises_no_memory)
    with pytest.raises(MemoryError):
        decode_jpeg(file, Image.open(io.BytesIO(file)), "L")


def test_cmyk_is_read_by_pillow():
    content = encoded(Image.fromarray(FILM).convert("CMYK"), "JPEG", quality=90)
    assert np.array_equal(decode_colour(content), pillow(content, "RGB"))
