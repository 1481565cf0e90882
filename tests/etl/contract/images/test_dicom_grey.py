"""Modality and VOI tables, windows, and those of them that show nothing."""

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from pydicom import uid

from etl.contract.images.dicom.decode import decode_dicom
from etl.contract.images.pixels import BadImage
from tests.etl.dicom_files import RAMP, build, shown, table, written


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


USELESS = {
    "no width": {"WindowCenter": 0, "WindowWidth": 0},
    "a negative width": {"WindowCenter": 2000, "WindowWidth": -5},
    "no number": {"WindowCenter": "NaN", "WindowWidth": "NaN"},
    "all white": {"WindowCenter": 0, "WindowWidth": 1},
    "all black": {"WindowCenter": 40000, "WindowWidth": 100},
    "black and white": {"WindowCenter": 1500, "WindowWidth": 1},
    "a centre without width": {"WindowCenter": 2000},
    "an item without entries": {"VOILUTSequence": [pydicom.Dataset()]},
    "no items": {"VOILUTSequence": [], "ModalityLUTSequence": []},
    "a width that shows one grey": {"WindowCenter": 2000, "WindowWidth": 1e30},
    "a width that shows some greys": {"WindowCenter": 500_000, "WindowWidth": 1_000_000, "VOILUTFunction": "SIGMOID"},
    "entries of one grey, below white": {"VOILUTSequence": table([9, 9], first=0, bits=4)},
    "entries of one grey": {"VOILUTSequence": table([7, 7], first=0, bits=16)},
    "a modality item without entries": {"ModalityLUTSequence": [pydicom.Dataset()]},
    "a slope of 0": {"RescaleSlope": 0, "RescaleIntercept": 5},
    "empty tags": {"WindowCenter": "", "WindowWidth": "", "RescaleSlope": "", "RescaleIntercept": ""},
}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("kind", USELESS)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_tag_that_shows_nothing_is_as_if_it_were_absent(kind, photometric):
    assert shown(RAMP, photometric=photometric, **USELESS[kind]) == shown(RAMP, photometric=photometric)


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("kind", [kind for kind, tags in USELESS.items() if "WindowCenter" in tags and len(tags) == 2])
def test_behind_a_window_that_shows_nothing_the_next_one_counts(kind):
    window = {"WindowCenter": 2000, "WindowWidth": 2001}
    both = {tag: [USELESS[kind][tag], window[tag]] for tag in window}
    assert shown(RAMP, **both) == shown(RAMP, **window) == [[0, 0, 128, 255, 255]]
    # A lookup table without entries is followed by the window.
    assert shown(RAMP, VOILUTSequence=[pydicom.Dataset()], **window) == shown(RAMP, **window)


def test_padding_does_not_make_a_window_useful():
    pixels = np.array([[1500, 3000, 3100, 4000]], np.uint16)
    # The padding alone would be grey, the film white.
    window = {"WindowCenter": 1500, "WindowWidth": 100, "PixelPaddingValue": 1500}
    assert shown(pixels, **window) == [[0, 0, 26, 255]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 32768, "WindowWidth": 65536},
        {"WindowCenter": 8192, "WindowWidth": 16384, "BitsStored": 12},
        {"VOILUTSequence": table(list(range(0, 65536, 4)), first=0, bits=16)},
    ],
)
def test_a_window_for_more_bits_than_the_film_has_does_not_make_it_dark(tags, photometric):
    assert shown(RAMP, photometric=photometric, **tags) == shown(RAMP, photometric=photometric)


def test_a_film_of_nearly_one_grey_is_not_stretched_by_its_range():
    flat = np.random.default_rng(0).integers(300, 306, (20, 20)).astype(np.uint16)
    assert np.ptp(shown(flat, WindowCenter=2048, WindowWidth=4096)) <= 1


def test_one_pixel_between_black_and_white_makes_a_window_useful():
    pixels = np.zeros((40, 40), np.uint16)
    pixels[:, 20:] = 4000
    window = {"WindowCenter": 2000, "WindowWidth": 101}
    assert set(np.unique(shown(pixels, **window))) == {0, 255}
    pixels[33, 17] = 2000
    assert shown(pixels, **window)[33][17] == 129  # 0.505 of 255


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("function", [None, "", "linear", "LINEAR_EXACT"])
def test_a_width_below_1_is_linear_exact(function):
    scaled = {"RescaleSlope": "0.0001", "RescaleIntercept": 0, "WindowCenter": "0.2", "WindowWidth": "0.2"}
    # (value - 0.2) / 0.2 + 0.5 of 0, 0.1, 0.2, 0.3, 0.4
    assert shown(RAMP, VOILUTFunction=function, **scaled) == [[0, 0, 128, 255, 255]]
    assert shown(np.array([[1000, 1500, 3000]], np.uint16), VOILUTFunction=function, **scaled) == [[0, 64, 255]]


def test_an_unknown_function_is_named():
    with pytest.raises(BadImage, match="^VOI LUT Function 'CUBIC', expected LINEAR, LINEAR_EXACT or SIGMOID$"):
        shown(RAMP, WindowCenter=2000, WindowWidth=2001, VOILUTFunction="CUBIC")


@pytest.mark.parametrize(("bits", "white"), [(16, 4095), (12, 4095), (10, 4095), (0, 4095), (16, 60000), (16, 20000)])
def test_entries_that_contradict_the_bits_of_their_table_are_scaled_by_their_own_bits(bits, white):
    voi = {"VOILUTSequence": table([0, white // 2, white], first=0, bits=bits)}
    full = 4095 if white == 4095 else 65535
    assert shown(np.array([[0, 1, 2]], np.uint16), **voi) == [
        [0, round(white // 2 * 255 / full), round(white * 255 / full)]
    ]


def test_the_first_value_of_a_table_is_signed_if_its_values_are():
    entries, signed = [0, 500, 1000], np.array([[-1025, -1024, -1023, -1022, 5]], np.int16)
    greys = [[0, 0, 128, 255, 255]]
    for first in (-1024, 65536 - 1024):
        modality = table(entries, first=0, bits=16)
        modality[0]["LUTDescriptor"].VR = "SS" if first < 0 else "US"
        modality[0].LUTDescriptor = [3, first, 16]
        assert shown(signed, ModalityLUTSequence=modality) == greys
        voi = [pydicom.Dataset()]
        voi[0].update(modality[0])
        voi[0].LUTData = [0, 32768, 65535]
        assert shown(signed, VOILUTSequence=voi) == greys
        rescaled = {"RescaleSlope": 1, "RescaleIntercept": -1100}
        assert shown(np.array([[75, 76, 77, 78, 999]], np.uint16), VOILUTSequence=voi, **rescaled) == greys
    # Where the values cannot be negative, the first value of the table is not negative either.
    voi = {"VOILUTSequence": table([0, 32768, 65535], first=40000, bits=16)}
    assert shown(np.array([[0, 40000, 40001, 40002, 65535]], np.uint16), **voi) == greys


def test_eight_bit_entries_are_found_beyond_the_256th():
    entries = [value // 16 for value in range(4096)]
    pixels = np.array([[0, 255, 256, 4095]], np.uint16)
    assert shown(pixels, VOILUTSequence=table(entries, first=0, bits=8)) == [[0, 15, 16, 255]]


def with_commas(**tags) -> list:
    """The greys of a ramp whose numbers have decimal commas, which pydicom would not write."""
    content = written(build(RAMP, **tags))
    for number in tags.values():
        content = content.replace(number.encode(), number.replace(".", ",").encode())
    return decode_dicom(content).tolist()


def test_a_window_that_is_no_number_is_as_if_it_were_absent():
    assert with_commas(WindowCenter="20.5", WindowWidth="9.5") == shown(RAMP)


@pytest.mark.parametrize("tag", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescale_that_is_no_number_is_named(tag):
    with pytest.raises(BadImage, match=f"^{tag} '2,50', expected a number$"):
        with_commas(**{"RescaleSlope": "1", "RescaleIntercept": "0", tag: "2.50"})


def packed(entries: np.ndarray, declared: int, bits: int) -> list[pydicom.Dataset]:
    """A sequence of one lookup table with entries as bytes. entries: uint8, or uint16."""
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [declared, 0, bits])
    item.add_new("LUTData", "OW", entries.tobytes() + bytes(entries.nbytes % 2))
    return [item]


SLOPE = np.arange(0, 65536, 16, dtype=np.uint16)
PLACES = np.array([[0, 255, 2048, 4094, 4095]], np.uint16)


@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian])
def test_entries_are_words_or_bytes(kind, syntax):
    order, grey = "<>"[syntax == uid.ExplicitVRBigEndian], [[0, 16, 128, 255, 255]]

    def look_up(entries: np.ndarray, declared: int, bits: int, pixels=PLACES) -> list:
        if entries.itemsize == 1 and order == ">":
            entries = np.append(entries, np.zeros(len(entries) % 2, "u1")).reshape(-1, 2)[:, ::-1]
        lut = packed(entries.astype(entries.dtype.newbyteorder(order)), declared, bits)
        return shown(pixels, syntax=syntax, **{kind: lut})

    assert look_up(SLOPE, 4096, 16) == look_up(SLOPE >> 4, 4096, 12) == grey
    # Some writers leave out the last one, or append some.
    assert look_up(SLOPE[:-1], 4096, 16) == look_up(np.append(SLOPE, SLOPE), 4096, 16) == grey
    bytes_ = np.rint(SLOPE / 65520 * 255).astype(np.uint8)
    assert look_up(bytes_, 4096, 8) == look_up(bytes_.astype(np.uint16), 4096, 8) == grey
    # With a byte of padding
    assert look_up(np.array([0, 51, 255], np.uint8), 3, 8, np.array([[0, 1, 2]], np.uint16)) == [[0, 51, 255]]


@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("number", [1, 2047, 2048, 2049, 3000, 4094])
def test_a_table_that_is_too_short_is_named(kind, number):
    values = table([int(entry) for entry in SLOPE[:number]], first=0, bits=16)
    values[0].LUTDescriptor = [4096, 0, 16]
    for lut in (packed(SLOPE[:number], 4096, 16), values):
        with pytest.raises(BadImage, match=f"^LUT of 4096 entries has {number}: damaged, expected all"):
            shown(PLACES, **{kind: lut})


@pytest.mark.parametrize("declared", [4096, 0])
def test_behind_a_voi_table_that_is_too_short_the_next_one_or_the_window_counts(declared):
    number = 3000 if declared else 4096
    short, whole = packed(SLOPE[:number], declared, 16), packed(SLOPE[::-1], 4096, 16)
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    assert shown(PLACES, VOILUTSequence=short + whole) == shown(PLACES, VOILUTSequence=whole)
    assert shown(PLACES, VOILUTSequence=short, **window) == shown(PLACES, **window)
    without_bits = packed(SLOPE, 4096, 16)
    without_bits[0].LUTDescriptor = [4096, 0]
    assert shown(PLACES, VOILUTSequence=without_bits, **window) == shown(PLACES, **window)
    # Windows that show nothing do not lead to the range of the pixels.
    reason = f"^LUT of {declared or 65536} entries has {number}: .*; no other VOI LUT or window shows the film$"
    for tags in ({}, USELESS["all white"]):
        with pytest.raises(BadImage, match=reason):
            shown(PLACES, VOILUTSequence=short, **tags)
    with pytest.raises(BadImage, match=r"expected all that it declares$"):
        shown(PLACES, ModalityLUTSequence=short, VOILUTSequence=whole, **window)


def test_a_descriptor_without_bits_is_named():
    lut = packed(SLOPE, 4096, 16)
    lut[0].LUTDescriptor = [4096, 0]
    with pytest.raises(BadImage, match=r"LUT descriptor \[4096, 0\], expected number of entries, first value and bits"):
        shown(PLACES, VOILUTSequence=lut)


def film_with_marker(largest: int, side: int = 200, marker: int = 65535) -> np.ndarray:
    film = np.random.default_rng(0).integers(0, largest + 1, (side, side)).astype(np.uint16)
    film[8:10, 5 : 5 + side // 5] = marker  # 0.2% of 200 x 200
    return film


WIDE = {"WindowCenter": 32768, "WindowWidth": 65536}
FITTING = {"WindowCenter": 8192, "WindowWidth": 16384}
MARKED = film_with_marker(16383)
RUN_AGAINST = {"RescaleSlope": -1, "RescaleIntercept": 65535}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("side", [200, 1200])
def test_a_marker_does_not_make_a_window_fit(photometric, side):
    film = film_with_marker(16383, side)
    both = {tag: [WIDE[tag], FITTING[tag]] for tag in WIDE}
    film_shown = shown(film, photometric=photometric, **both)
    assert film_shown == shown(film, photometric=photometric, **FITTING)
    assert np.percentile(film_shown, [1, 99]) == pytest.approx([2.5, 252], abs=1)


@pytest.mark.parametrize("window", [{}, WIDE])
@pytest.mark.parametrize("tags", [{}, {"photometric": "MONOCHROME1"}, RUN_AGAINST], ids=["1", "2", "slope of -1"])
@pytest.mark.parametrize("film", [MARKED, 65535 - MARKED], ids=["dark", "bright"])
def test_a_film_that_a_marker_leaves_dark_is_refused(film, tags, window):
    if film is not MARKED and not tags:
        # A bright film with a black label is not dark, and its window says that it is so.
        assert np.median(shown(film, **window)) > 200
        return
    with pytest.raises(BadImage, match=r"^few bits: all but 0.5% of the pixels are from \d+ to \d+, in a range from 0"):
        shown(film, **tags, **window)


def test_what_a_marker_or_padding_leaves():
    with pytest.raises(BadImage, match="few bits"):
        shown(MARKED)
    # As padding, the marker is not looked at.
    assert np.percentile(shown(MARKED, PixelPaddingValue=65535), 98) > 245
    # A marker that is brighter, but not by two bits.
    assert np.percentile(shown(film_with_marker(20000)), 98) == pytest.approx(77, abs=2)
    # Larger areas than a marker count.
    large = MARKED.copy()
    large[:2] = 65535
    assert np.median(shown(large, **WIDE)) == pytest.approx(32, abs=1)
    # 8 bits may be dark.
    eight = np.where(MARKED == 65535, 255, MARKED >> 8).astype(np.uint8)
    assert shown(eight) == shown(eight, WindowCenter=128, WindowWidth=256) == eight.tolist()
    # Films of nearly one grey, and those that are too small to tell a marker.
    for flat in (np.full((200, 200), 300, np.uint16), np.random.default_rng(0).integers(300, 306, (200, 200))):
        flat = flat.astype(np.uint16)
        flat[5:7, 5:45] = 4095
        window = {"WindowCenter": 2048, "WindowWidth": 4096}
        assert np.median(shown(flat, **window)) in (18, 19) and np.median(shown(flat)) == 0
    flat = np.random.default_rng(0).integers(3000, 3021, (200, 200)).astype(np.uint16)
    flat[0, :40] = 65535
    assert np.median(shown(flat)) == 0
    small = film_with_marker(16383, side=10)
    assert shown(small)[8][5] == 255 and np.median(shown(small)) < 64


@given(st_np.arrays(np.uint16, (20, 20)), st.integers(0, 65535), st.integers(0, 15))
def test_monochrome1_of_the_complement_is_the_same_with_any_marker(film, marker, shift):
    film = film >> shift
    film[0, 0] = marker

    def result(pixels: np.ndarray, **tags) -> list | str:
        try:
            return shown(pixels, **tags)
        except BadImage as reason:
            return str(reason)[:8]

    dark, bright = result(film), result(65535 - film, photometric="MONOCHROME1")
    # Nearly one grey by its bits, one of them may not be refused.
    assert dark == bright or "few bits" in (dark, bright)


def test_padding_does_not_widen_the_range():
    pixels = np.array([[0, 1000, 1100, 1500]], np.uint16)
    assert shown(pixels, PixelPaddingValue=0) == [[0, 0, 51, 255]]
    assert shown(pixels, PixelPaddingValue=0, PixelPaddingRangeLimit=1000) == [[0, 0, 0, 255]]
    assert shown(pixels) == [[0, 170, 187, 255]]
    dark = np.array([[65535, 1000, 1100, 1500]], np.uint16)
    assert shown(dark, photometric="MONOCHROME1", PixelPaddingValue=65535) == [[0, 255, 204, 0]]
    with pytest.raises(BadImage, match="nothing but padding"):
        shown(np.zeros((2, 2), np.uint8), PixelPaddingValue=0)
