"""The greys that a DICOM file shows, in every form that the file may have."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis.extra import numpy as st_np
from pydicom import uid
from pydicom.data import get_testdata_file

from etl.contract.images.dicom import decode_dicom
from etl.contract.images.pixels import BadImage
from tests.etl.dicom_files import ENCODERS, RAMP, build, shown, written


def table(entries: list[int], first: int, bits: int) -> list[pydicom.Dataset]:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [len(entries), first, bits], entries
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    return [item]


def test_without_a_window_the_range_of_the_pixels_is_shown():
    assert shown(RAMP) == [[0, 64, 128, 191, 255]]  # 63.75, 127.5, 191.25
    assert shown(RAMP, photometric="MONOCHROME1") == [[255, 191, 128, 64, 0]]
    assert shown(np.full((2, 2), 7, np.uint8), photometric="MONOCHROME1") == [[0, 0], [0, 0]]


@given(st_np.arrays(np.uint16, (3, 4)))
def test_monochrome1_of_the_complement_is_the_same_image(pixels):
    assert shown(65535 - pixels, photometric="MONOCHROME1") == shown(pixels)


@pytest.mark.parametrize(
    ("function", "greys"),
    [
        # (value - (2000 - 0.5)) / (2001 - 1) + 0.5 of 255
        ("LINEAR", [0, 0, 128, 255, 255]),
        # (value - 2000) / 2001 + 0.5
        ("LINEAR_EXACT", [0, 0, 128, 255, 255]),
        # 1 / (1 + exp(-4 (value - 2000) / 2001)): e^-3.998 and e^-1.999
        ("SIGMOID", [5, 30, 128, 225, 250]),
    ],
)
def test_a_window_maps_its_width_to_the_full_range(function, greys):
    window = {"WindowCenter": 2000, "WindowWidth": 2001, "VOILUTFunction": function}
    assert shown(RAMP, **window) == [greys]
    assert shown(RAMP, photometric="MONOCHROME1", **window)[0] == pytest.approx([255 - grey for grey in greys], abs=1)


def test_the_first_window_counts_and_linear_differs_from_linear_exact():
    pixels = np.array([[0, 1, 3, 4]], np.uint8)
    # (value - (2 - 0.5)) / (3 - 1) + 0.5 (PS3.3 C.11.2.1.2): -0.25, 0.25, 1.25, 1.75
    assert shown(pixels, WindowCenter=[2, 100], WindowWidth=[3, 5]) == [[0, 64, 255, 255]]
    # (value - 2) / 4 + 0.5: 0, 0.25, 0.75, 1
    exact = {"WindowCenter": [2, 100], "WindowWidth": [4, 5], "VOILUTFunction": "LINEAR_EXACT"}
    assert shown(pixels, **exact) == [[0, 64, 191, 255]]


def test_rescale_comes_before_the_window():
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000.5, "WindowWidth": 4001}
    assert shown(RAMP, **rescaled) == [[0, 0, 128, 255, 255]]  # -1000, 1000, 3000, 5000, 7000 of 1000 to 5000
    assert shown(RAMP, RescaleSlope=-1, RescaleIntercept=4000) == [[255, 191, 128, 64, 0]]


def test_lookup_tables_are_applied_one_after_the_other():
    pixels = np.array([[0, 10, 11, 12, 99]], np.uint16)
    modality = {"ModalityLUTSequence": table([0, 500, 1000], first=10, bits=16)}
    assert shown(pixels, **modality) == [[0, 0, 128, 255, 255]]
    voi = {"VOILUTSequence": table([0, 51, 255], first=499, bits=8)}
    assert shown(pixels, **modality, **voi) == [[0, 0, 51, 255, 255]]
    # 12 bits: 4095 is white, and the look-up goes before the window.
    voi = {"VOILUTSequence": table([0, 4095, 819], first=0, bits=12), "WindowCenter": 1, "WindowWidth": 1}
    assert shown(np.array([[0, 1, 2, 3]], np.uint16), **voi) == [[0, 255, 51, 51]]


def test_eight_bit_entries_are_found_beyond_the_256th():
    entries = [value // 16 for value in range(4096)]
    pixels = np.array([[0, 255, 256, 4095]], np.uint16)
    assert shown(pixels, VOILUTSequence=table(entries, first=0, bits=8)) == [[0, 15, 16, 255]]


def test_bits_beyond_the_stored_ones_are_ignored():
    junk = np.array([[0xF000, 0x1FFF, 0xA333]], np.uint16)
    assert shown(junk, BitsStored=12) == [[0, 255, 51]]  # 0, 4095, 819
    signed = np.array([[0x0FFF, 0x7000, 0x0004]], np.int16)
    assert shown(signed, BitsStored=12) == [[0, 51, 255]]  # -1, 0, 4


def test_signed_pixels():
    assert shown(np.array([[-1000, -500, 0, 1000]], np.int16)) == [[0, 64, 128, 255]]  # 63.75, 127.5
    window = {"WindowCenter": 0.5, "WindowWidth": 511}
    assert shown(np.array([[-128, -1, 0, 127]], np.int8), **window) == [[64, 127, 128, 191]]  # (value + 255) / 2


def test_padding_does_not_widen_the_range():
    pixels = np.array([[0, 1000, 1100, 1500]], np.uint16)
    assert shown(pixels, PixelPaddingValue=0) == [[0, 0, 51, 255]]
    assert shown(pixels, PixelPaddingValue=0, PixelPaddingRangeLimit=1000) == [[0, 0, 0, 255]]
    assert shown(pixels) == [[0, 170, 187, 255]]
    dark = np.array([[65535, 1000, 1100, 1500]], np.uint16)
    assert shown(dark, photometric="MONOCHROME1", PixelPaddingValue=65535) == [[0, 255, 204, 0]]
    with pytest.raises(BadImage, match="nothing but padding"):
        shown(np.zeros((2, 2), np.uint8), PixelPaddingValue=0)


def test_colour_becomes_luminance():
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    assert shown(pixels, photometric="RGB") == [[76, 150, 29, 9]]
    assert shown(pixels.astype(np.uint16) * 257, photometric="RGB") == [[76, 150, 29, 9]]
    wide = {"photometric": "RGB", "syntax": uid.ExplicitVRBigEndian}
    # A 256th less than above: 75.9, 149.1, 29.0, 8.96
    assert shown(pixels.astype(np.uint16) * 256, **wide) == [[76, 149, 29, 9]]
    assert shown(np.array([[[180, 128, 128], [20, 128, 128]]], np.uint8), photometric="YBR_FULL") == [[180, 20]]


def test_a_palette_becomes_luminance():
    def palette(*colours: int) -> bytes:
        return struct.pack(f"<{len(colours)}H", *colours)

    colours = {f"{colour}PaletteColorLookupTableDescriptor": [3, 5, 16] for colour in ("Red", "Green", "Blue")}
    colours["RedPaletteColorLookupTableData"] = palette(0, 65535, 257)
    colours["GreenPaletteColorLookupTableData"] = palette(0, 0, 257)
    colours["BluePaletteColorLookupTableData"] = palette(0, 0, 257)
    pixels = np.array([[0, 5, 6, 7, 255]], np.uint8)
    assert shown(pixels, photometric="PALETTE COLOR", **colours) == [[0, 0, 76, 1, 1]]
    for colour in ("Red", "Green", "Blue"):
        colours[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 5, 8]
        colours[f"{colour}PaletteColorLookupTableData"] = bytes([10, 20, 30, 40])
    # All values beyond the palette get its last colour, even one 256 above the first.
    pixels = np.array([[0, 5, 6, 261]], np.uint16)
    assert shown(pixels, photometric="PALETTE COLOR", **colours) == [[10, 10, 20, 40]]


NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
NATIVE += [uid.DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_every_uncompressed_syntax_shows_the_same(syntax, kind):
    pixels = np.array([[0, 20, 40], [60, 80, 100]], kind)
    assert shown(pixels, syntax=syntax) == [[0, 51, 102], [153, 204, 255]]


@pytest.mark.parametrize("syntax", ENCODERS)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_lossless_compression_shows_the_same(syntax, kind):
    dataset = build(np.random.default_rng(0).integers(0, 128, (33, 47)).astype(kind))
    whole = decode_dicom(written(dataset))
    dataset.compress(syntax, encoding_plugin=ENCODERS[syntax])
    assert np.array_equal(decode_dicom(written(dataset)), whole)


@pytest.mark.parametrize("syntax", ["jp2klossless", "jpeg_ls_lossless", "RLE", "bigendian", "implicit"])
def test_every_form_of_one_scan_shows_the_same(syntax):
    plain, other = (
        decode_dicom(Path(get_testdata_file(name, download=False)).read_bytes())
        for name in ("MR_small.dcm", f"MR_small_{syntax}.dcm")
    )
    assert np.array_equal(plain, other)


@pytest.mark.parametrize(
    ("name", "mean_error"),
    [("SC_rgb_jpeg_gdcm.dcm", 0), ("SC_rgb_jpeg_lossy_gdcm.dcm", 0.5), ("SC_rgb_jpeg_dcmtk.dcm", 0.5)],
)
def test_jpeg_lossless_and_baseline_show_the_same(name, mean_error):
    plain, other = (
        decode_dicom(Path(get_testdata_file(file, download=False)).read_bytes()) for file in ("SC_rgb_rle.dcm", name)
    )
    assert np.abs(plain.astype(int) - other).mean() <= mean_error


def test_lossy_jpeg_of_12_bits():
    grey = decode_dicom(Path(get_testdata_file("JPGExtended.dcm", download=False)).read_bytes())
    # pydicom's own tests have 244 and 95 at these places; the brightest pixel is 264.
    assert (grey[420, 140], grey[230, 120]) == (236, 92)
