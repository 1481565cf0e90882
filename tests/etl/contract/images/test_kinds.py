"""Which kinds of image files are read, and what is said of all others."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid

from etl.contract.images.decode import begins_like_image, decode_colour, decode_grey
from etl.contract.images.kinds import HEAD_BYTES, KINDS, SUFFIXES, other_kind
from etl.contract.images.pixels import MAX_SIDE_PX, BadImage
from tests.etl.dicom_files import build, written
from tests.etl.image_files import encoded, png_of, tiff_of
from tests.etl.other_files import OTHERS

RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (24, 1))
COLOURS = np.dstack([RAMP, np.ascontiguousarray(RAMP[:, ::-1]), np.full_like(RAMP, 90)])
LUMINANCE = np.round(COLOURS @ [0.299, 0.587, 0.114])
NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
SAVED = {
    "PNG": png_of,
    "TIFF": tiff_of,
    "WEBP": lambda film: encoded(film, "WEBP", lossless=True),
    "BMP": lambda film: encoded(film, "BMP"),
    "DICOM": lambda film: written(dicom_of(film)),
}


def dicom_of(film: np.ndarray):
    if film.ndim == 3:
        return build(film, photometric="RGB")
    return build(film, WindowCenter=128, WindowWidth=256)


@pytest.mark.parametrize("kind", SAVED)
def test_every_kind_gives_the_same_grey_and_the_same_colours(kind):
    assert np.array_equal(decode_grey(SAVED[kind](RAMP)), RAMP)
    assert np.array_equal(decode_colour(SAVED[kind](RAMP)), np.dstack([RAMP] * 3))
    assert np.array_equal(decode_colour(SAVED[kind](COLOURS)), COLOURS)
    assert np.abs(decode_grey(SAVED[kind](COLOURS)) - LUMINANCE).max() <= 1


def test_lossy_webp_and_every_kind_of_bmp_are_read():
    assert np.abs(decode_grey(encoded(RAMP, "WEBP", quality=95)).astype(int) - RAMP).max() <= 4
    assert np.array_equal(decode_grey(encoded(np.dstack([RAMP] * 4), "WEBP", lossless=True, exact=True)), RAMP)
    film = Image.fromarray(RAMP)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        expected = np.asarray(film.convert(mode).convert("L"))
        assert np.array_equal(decode_grey(encoded(film.convert(mode), "BMP")), expected)
    upside_down = bytearray(encoded(RAMP, "BMP"))
    upside_down[22:26] = struct.pack("<i", -len(RAMP))
    assert np.array_equal(decode_grey(bytes(upside_down)), RAMP[::-1])


def test_a_dicom_in_colour_keeps_its_colours_however_it_is_compressed():
    dataset = build(NOISE, photometric="RGB")
    dataset.compress(uid.RLELossless, encoding_plugin="pydicom")
    assert np.array_equal(decode_colour(written(dataset)), NOISE)
    wide = build(NOISE.astype(np.uint16) * 257, photometric="RGB")
    assert np.array_equal(decode_colour(written(wide)), NOISE)
    tags = {f"{colour}PaletteColorLookupTableDescriptor": [2, 0, 8] for colour in ("Red", "Green", "Blue")}
    tags |= {"RedPaletteColorLookupTableData": b"\x09\xff", "GreenPaletteColorLookupTableData": b"\x09\x00"}
    tags |= {"BluePaletteColorLookupTableData": b"\x09\x80"}
    palette = build(np.array([[0, 1]], np.uint8), photometric="PALETTE COLOR", **tags)
    assert decode_colour(written(palette)).tolist() == [[[9, 9, 9], [255, 0, 128]]]


@pytest.mark.parametrize("kind", ["WEBP", "BMP"])
@pytest.mark.parametrize("colour", [False, True])
def test_every_cut_is_refused_or_whole(kind, colour, capfd):
    content = SAVED[kind](NOISE if colour else NOISE[..., 0])
    whole = decode_grey(content)
    refused = 0
    for end in range(1, len(content), 5):
        try:
            assert np.array_equal(decode_grey(content[:end]), whole), f"{end} of {len(content)} bytes"
        except BadImage:
            refused += 1
    assert refused > len(content) / 5 * 0.9
    assert capfd.readouterr() == ("", "")


def test_no_cut_of_a_run_length_encoded_bmp_is_filled_up():
    rows = b"\x18\x07\x00\x00" * 24 + b"\x00\x01"
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    head = struct.pack("<IiiHHIIiiII", 40, 24, 24, 1, 8, 1, len(rows), 0, 0, 256, 0)
    file = b"BM" + struct.pack("<IHHI", 54 + 1024 + len(rows), 0, 0, 54 + 1024) + head + palette + rows
    assert np.array_equal(decode_grey(file), np.full((24, 24), 7))
    for end in range(len(file) - 8, len(file) - len(rows), -4):
        with pytest.raises(BadImage):
            decode_grey(file[:end])


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.sampled_from(["WEBP", "BMP"]))
def test_damage_is_an_image_or_a_reason_without_addresses(places, kind):
    damaged = bytearray(SAVED[kind](NOISE))
    for place, byte in places:
        damaged[place] = byte
    try:
        assert decode_grey(bytes(damaged)).dtype == np.uint8
    except BadImage as reason:
        assert 0 < len(str(reason)) < 300
        assert " at 0x" not in str(reason)


def test_a_file_of_several_frames_or_of_a_huge_size_is_refused():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("black", "white")]
    animated = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    one = encoded(frames[0], "WEBP", save_all=True)
    bomb = bytearray(encoded(RAMP, "BMP"))
    bomb[18:26] = struct.pack("<ii", 60_000, 60_000)
    wide = encoded(np.zeros((1, MAX_SIDE_PX + 1), np.uint8), "WEBP", lossless=True)
    for decode in (decode_grey, decode_colour):
        assert decode(one).max() == 0
        with pytest.raises(BadImage, match="several frames, expected one"):
            decode(animated)
        for content in (bytes(bomb), wide):
            with pytest.raises(BadImage, match="too large"):
                decode(content)


UNKNOWN = {
    "audio": (b"RIFF\x24\0\0\0WAVEfmt ", "starts with b'RIFF"),
    "text that begins like a BMP": (b"BMI of the patients: 23, 31, 27", "starts with b'BMI of t'"),
}


@pytest.mark.parametrize("kind", [*OTHERS, *UNKNOWN])
def test_another_kind_is_named_with_those_that_are_read(kind):
    content, name = (OTHERS | UNKNOWN)[kind]
    for decode in (decode_grey, decode_colour):
        with pytest.raises(BadImage) as caught:
            decode(content)
        assert str(caught.value).startswith(f"no {KINDS}: ") and name in str(caught.value)
        assert "Smith" not in str(caught.value)
    assert not begins_like_image(content)
    # A folder's files are judged by their beginning.
    assert name in other_kind(content[:HEAD_BYTES]) if kind in OTHERS else other_kind(content) == ""


@given(st.sampled_from([content for content, _ in OTHERS.values()]), st.integers(0, 400), st.binary(max_size=8))
def test_any_damage_to_another_kind_has_a_name_or_none(content, place, bytes_):
    assert isinstance(other_kind(content[:place] + bytes_ + content[place + len(bytes_) :]), str)


@pytest.mark.parametrize("kind", SAVED)
def test_a_file_begins_like_its_kind_however_damaged_it_is(kind):
    content = SAVED[kind](RAMP)
    assert begins_like_image(content[:200])
    assert kind in KINDS
    assert f".{kind.lower()}" in SUFFIXES
