"""The greys that a DICOM file shows, in every form that the file may have."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file

from etl.contract.images.dicom.decode import decode_dicom
from etl.contract.images.pixels import BadImage
from tests.etl.dicom_files import ENCODERS, RAMP, build, shown, written


def test_bits_beyond_the_stored_ones_are_ignored():
    junk = np.array([[0xF000, 0x1FFF, 0xA333]], np.uint16)
    assert shown(junk, BitsStored=12) == [[0, 255, 51]]  # 0, 4095, 819
    signed = np.array([[0x0FFF, 0x7000, 0x0004]], np.int16)
    assert shown(signed, BitsStored=12) == [[0, 51, 255]]  # -1, 0, 4


def test_signed_pixels():
    assert shown(np.array([[-1000, -500, 0, 1000]], np.int16)) == [[0, 64, 128, 255]]  # 63.75, 127.5
    window = {"WindowCenter": 0.5, "WindowWidth": 511}
    assert shown(np.array([[-128, -1, 0, 127]], np.int8), **window) == [[64, 127, 128, 191]]  # (value + 255) / 2


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
    # Entries of 8 bits in words.
    colours["RedPaletteColorLookupTableData"] = palette(0, 255, 9)
    colours["GreenPaletteColorLookupTableData"] = colours["BluePaletteColorLookupTableData"] = palette(0, 0, 9)
    assert shown(pixels, photometric="PALETTE COLOR", **colours) == [[0, 0, 76, 9, 9]]
    for colour in ("Red", "Green", "Blue"):
        colours[f"{colour}PaletteColorLookupTableData"] = palette(0, 0, 0)
    assert shown(pixels, photometric="PALETTE COLOR", **colours) == [[0, 0, 0, 0, 0]]
    colours["RedPaletteColorLookupTableDescriptor"] = [3, 5]
    with pytest.raises(BadImage, match=r"LUT descriptor \[3, 5\], expected number of entries, first value and bits"):
        shown(pixels, photometric="PALETTE COLOR", **colours)
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
@pytest.mark.parametrize("kind", [np.uint16, np.int16])
@pytest.mark.parametrize("stored_bits", [10, 12, 15])
def test_bits_beyond_the_stored_ones_are_ignored_in_compressed_pixels_too(syntax, kind, stored_bits):
    film = np.random.default_rng(0).integers(0, 2**stored_bits, (33, 47)).astype(np.uint16)
    film[10:20, 5:25] |= 0x8000  # an overlay
    middle = 0 if kind == np.int16 else 2 ** (stored_bits - 1)
    dataset = build(film.view(kind), BitsStored=stored_bits, WindowCenter=middle, WindowWidth=2**stored_bits)
    native = decode_dicom(written(dataset))
    # As archives compress whole words.
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.compress(syntax, encoding_plugin=ENCODERS[syntax])
    dataset.BitsStored, dataset.HighBit = stored_bits, stored_bits - 1
    assert np.array_equal(decode_dicom(written(dataset)), native)
    assert len(np.unique(native)) > 200


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


def test_pixels_that_are_not_square_are_made_square():
    film = np.array([[0, 100], [200, 50]], np.uint8)
    window = {"WindowCenter": 128, "WindowWidth": 256}
    for aspect in ({"PixelAspectRatio": [2, 1]}, {"PixelSpacing": [0.4, 0.2]}, {"ImagerPixelSpacing": [0.2, 0.1]}):
        assert shown(film, **window, **aspect) == [[0, 100], [50, 88], [150, 63], [200, 50]]
        # Turned, its rows become columns.
        assert np.shape(shown(film, **window, **aspect, PatientOrientation=["H", "L"])) == (2, 4)
    wide = shown(film, **window, PixelAspectRatio=[1, 3])
    assert np.shape(wide) == (2, 6) and wide[0][0] == 0 and wide[1][5] == 50
    for same in ([1, 1], [1000, 1005], [0, 1], [2], ""):
        assert shown(film, **window, PixelAspectRatio=same) == film.tolist()
    with pytest.raises(BadImage, match="too large: 2x20000"):
        shown(film, PixelAspectRatio=[10_000, 1])


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
def test_words_of_the_header_in_another_case_or_between_blanks(syntax):
    def read(photometric: str, **tags) -> list:
        dataset = build(RAMP, **tags)
        if syntax == uid.RLELossless:
            dataset.compress(syntax, encoding_plugin="pydicom")
        dataset.PhotometricInterpretation, dataset.HighBit = photometric, None
        return decode_dicom(written(dataset)).tolist()

    assert read("monochrome2") == read(" Monochrome2 ") == shown(RAMP)
    assert read(" MONOCHROME1") == read("monochrome1") == shown(RAMP, photometric="MONOCHROME1")
    window = {"WindowCenter": 2000, "WindowWidth": 2001}
    assert read("MONOCHROME2", VOILUTFunction=" sigmoid", **window) == shown(RAMP, VOILUTFunction="SIGMOID", **window)


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_the_window_of_an_enhanced_object_is_that_of_its_frame(groups):
    def in_a_group(**macros) -> dict:
        group = pydicom.Dataset()
        for macro, tags in macros.items():
            item = pydicom.Dataset()
            for tag, value in tags.items():
                setattr(item, tag, value)
            setattr(group, macro, [item])
        return {groups: [group], "NumberOfFrames": 1}

    window, rescale = {"WindowCenter": 3000.5, "WindowWidth": 4001}, {"RescaleSlope": 2, "RescaleIntercept": -1000}
    want = shown(RAMP, **window, **rescale)
    both = in_a_group(FrameVOILUTSequence=window, PixelValueTransformationSequence=rescale)
    assert shown(RAMP, **both) == want != shown(RAMP)
    assert shown(RAMP, WindowCenter=1, WindowWidth=2, **both) == want
    assert shown(RAMP, **window, **rescale, **in_a_group(FrameVOILUTSequence={"WindowCenter": None})) == want
    wide = in_a_group(PixelMeasuresSequence={"PixelSpacing": [2, 1]})
    assert shown(RAMP, **wide) == shown(RAMP, PixelSpacing=[2, 1]) != shown(RAMP)
    assert shown(RAMP, **{groups: []}) == shown(RAMP, **{groups: [pydicom.Dataset()]}) == shown(RAMP)
