"""Bits beyond the stored ones: overlays and signs are dropped, greys are not."""

import io

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid

from etl.contract.images.decode import decode_grey
from etl.contract.images.pixels import BadImage
from tests.etl.contract.images.test_dicom_stream import by_gdcm, jpeg_2000, with_stream
from tests.etl.dicom_files import ENCODERS, build, written

ROWS, COLUMNS = np.mgrid[0:64, 0:80]
FILM = 0.2 + 0.75 * np.exp(-((ROWS - 32) ** 2 + (COLUMNS - 40) ** 2) / 900)
SYNTAXES = [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, *ENCODERS]


def film(bits: int, kind: type = np.uint16) -> np.ndarray:
    """A bright middle in dark surroundings, over the range of so many bits."""
    black = -(2 ** (bits - 1)) if np.issubdtype(kind, np.signedinteger) else 0
    return (np.rint(FILM * (2**bits - 1)) + black).astype(kind)


def stored(pixels: np.ndarray, syntax: str = uid.ExplicitVRLittleEndian, said: int = 12, **tags) -> bytes:
    """The file of these pixels, whose header says that they have `said` bits."""
    photometric = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    is_native = syntax not in ENCODERS
    dataset = build(pixels, photometric, syntax if is_native else uid.ExplicitVRLittleEndian, **tags)
    if not is_native:
        dataset.compress(syntax, encoding_plugin=ENCODERS[syntax])
    dataset.BitsStored, dataset.HighBit = said, said - 1
    return written(dataset)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", [np.uint16, np.int16])
@pytest.mark.parametrize("bits", [13, 14, 16])
def test_greys_that_exceed_the_stored_bits_are_refused(bits, kind, syntax):
    with pytest.raises(BadImage, match=r"pixels exceed the 12 stored bits of the header, .*: correct BitsStored"):
        decode_grey(stored(film(bits, kind), syntax))
    assert decode_grey(stored(film(bits, kind), syntax, said=16)).std() > 40


@pytest.mark.parametrize(("bits", "said"), [(16, 15), (16, 8), (14, 10)])
def test_every_number_of_bits_may_be_said_wrongly(bits, said):
    with pytest.raises(BadImage, match=f"exceed the {said} stored bits"):
        decode_grey(stored(film(bits), said=said))
    with pytest.raises(BadImage, match="exceed the 6 stored bits"):
        decode_grey(stored(film(8, np.uint8), said=6))
    with pytest.raises(BadImage, match=f"exceed the {said} stored bits"):
        decode_grey(stored(np.dstack([film(bits)] * 3), said=said))


def test_unsigned_pixels_under_a_header_of_signed_ones_are_refused():
    for bits in (8, 12, 15):
        with pytest.raises(BadImage, match="correct BitsStored and HighBit, or PixelRepresentation"):
            decode_grey(stored(film(bits).astype(np.int16), said=bits))


@pytest.mark.parametrize("kind", [gdcm.TransferSyntax.JPEGLosslessProcess14_1, gdcm.TransferSyntax.JPEGLSLossless])
def test_what_gdcm_decodes_may_exceed_the_stored_bits_too(kind, tmp_path):
    def read(pixels: np.ndarray) -> np.ndarray:
        dataset = pydicom.dcmread(io.BytesIO(by_gdcm(stored(pixels, said=16), kind, tmp_path)))
        assert dataset.file_meta.TransferSyntaxUID.is_encapsulated
        dataset.BitsStored, dataset.HighBit = 12, 11
        return decode_grey(written(dataset))

    with pytest.raises(BadImage, match="exceed the 12 stored bits of the header, with values from 15770 to 62258"):
        read(film(16))
    overlay = film(12)
    overlay[10:20, 10:30] |= 0x8000
    assert np.array_equal(read(overlay), decode_grey(stored(film(12))))


def test_lossy_coding_that_exceeds_the_stored_bits_by_far_is_refused():
    dataset = build(film(14), BitsStored=12)
    frame = jpeg_2000(film(14), 8)
    with pytest.raises(BadImage, match="exceed the 12 stored bits"):
        decode_grey(with_stream(dataset, uid.JPEG2000, frame))


NOT_GREYS = {
    "an overlay": (slice(10, 20), slice(10, 50), 0x8000),
    "an overlay in the next bit": (slice(10, 40), slice(10, 50), 0x1000),
    "lines of an overlay": (slice(10, 40, 4), slice(10, 70), 0x1000),
    "several overlays": (slice(10, 20), slice(10, 50), np.repeat([0x1000, 0x2000, 0x9000, 0xF000], 10).astype("u2")),
    "an overlay over half of the film": (slice(0, 32), slice(None), 0x8000),
    "padding": (slice(None), slice(0, 20), 0xF830),
    "a hot pixel": (32, 40, 0x1000),
}


@pytest.mark.parametrize("junk", NOT_GREYS)
@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_what_is_no_grey_is_dropped(junk, kind, syntax):
    rows, columns, bits = NOT_GREYS[junk]
    pixels = film(12, kind)
    pixels.view(np.uint16)[rows, columns] |= bits
    expected = film(12, kind)
    expected.view(np.uint16)[rows, columns] |= np.array(bits & 0xFFF, np.uint16)
    window = {"WindowCenter": 0 if kind == np.int16 else 2048, "WindowWidth": 4096}
    assert np.array_equal(
        decode_grey(stored(pixels, syntax, **window)), decode_grey(stored(expected, syntax, **window))
    )


@pytest.mark.parametrize("width", [2, 8, 20, 30])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, next(iter(ENCODERS))])
def test_a_border_or_lights_just_above_white_are_white(width, syntax):
    pixels = film(12)
    pixels[:, :width], pixels[pixels > 3800] = 4100, 4096
    grey = decode_grey(stored(pixels, syntax))
    assert (grey[:, :width] == 255).all() and grey[pixels == 4096].min() == 255
    assert grey[0, -1] < 64


def test_signs_that_are_not_extended_are_no_greys():
    pixels = film(12, np.int16)
    assert np.array_equal(decode_grey(stored(pixels & 0xFFF)), decode_grey(stored(pixels)))


def test_an_overlay_that_the_file_declares_is_dropped_even_if_it_looks_like_greys():
    # Two wedges; with the bits, they are one.
    wedges = np.tile((np.arange(80) * 102 % 4080).astype(np.uint16), (64, 1))
    content = stored(wedges + (COLUMNS // 40 * 4096).astype(np.uint16))
    with pytest.raises(BadImage, match="exceed the 12 stored bits"):
        decode_grey(content)
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.add_new((0x6002, 0x0102), "US", 12)
    assert np.array_equal(decode_grey(written(dataset)), decode_grey(stored(wedges)))


@given(st.integers(8, 15), st.integers(1, 8), st.integers(0, 99))
def test_every_film_that_loses_bits_is_refused_and_none_that_keeps_them(said, more, seed):
    bits = min(said + more, 16)
    noise = np.random.default_rng(seed).normal(0, 0.004, FILM.shape)
    pixels = np.rint((FILM + noise).clip(0, 1) * (2**bits - 1)).astype(np.uint16)
    with pytest.raises(BadImage, match="exceed"):
        decode_grey(stored(pixels, said=said))
    low = pixels >> (bits - said)
    assert np.array_equal(decode_grey(stored(low | 0x8000, said=said)), decode_grey(stored(low, said=said)))
