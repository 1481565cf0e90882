import contextlib
import io
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame

from conf.errors import InputError
from etl.dicom import Tags, decode_dicom, looks_like_dicom, read_tags
from etl.images import MAX_SIDE_PX, BadImage
from etl.pseudonyms import hide, read_salt

SHIPPED = sorted(file for file in Path(pydicom.__path__[0], "data/test_files").rglob("*") if file.is_file())
RAMP = np.array([[0, 1000, 2000, 3000, 4000]], np.uint16)


def build(pixels: np.ndarray, photometric="MONOCHROME2", syntax=uid.ExplicitVRLittleEndian, **tags) -> pydicom.Dataset:
    """A radiograph of these pixels; `tags` replace and add, None removes."""
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientID = uid.ComputedRadiographyImageStorage, "1.2.3", "P7"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3 if pixels.ndim == 3 else 1, photometric
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.itemsize * 8
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = data + bytes(len(data) % 2)
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for tag, value in tags.items():
        setattr(dataset, tag, value)
        if value is None:
            del dataset[tag]
    dataset.HighBit = dataset.BitsStored - 1
    return dataset


def written(dataset: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def shown(pixels: np.ndarray, **tags) -> list:
    return decode_dicom(written(build(pixels, **tags))).tolist()


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
    # The last colour is that of all values beyond it, of 256 more than the first too.
    pixels = np.array([[0, 5, 6, 261]], np.uint16)
    assert shown(pixels, photometric="PALETTE COLOR", **colours) == [[10, 10, 20, 40]]


NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
NATIVE += [uid.DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_every_uncompressed_syntax_shows_the_same(syntax, kind):
    pixels = np.array([[0, 20, 40], [60, 80, 100]], kind)
    assert shown(pixels, syntax=syntax) == [[0, 51, 102], [153, 204, 255]]


# gdcm's encoder aborts on odd sizes.
ENCODERS = {uid.RLELossless: "pydicom", uid.JPEG2000Lossless: "pylibjpeg"}


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


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_file_of_pydicom_decodes_or_says_why_not(file, capfd, caplog, recwarn):
    content = file.read_bytes()
    try:
        grey = decode_dicom(content)
        assert (grey.ndim, grey.dtype) == (2, np.uint8)
    except BadImage as reason:
        assert 0 < len(str(reason)) < 250
    try:
        assert read_tags(content).instance
    except BadImage as reason:
        assert str(reason)
    assert (capfd.readouterr(), caplog.records, recwarn.list) == (("", ""), [], [])


def compressed(syntax: str) -> bytes:
    dataset = build(np.random.default_rng(0).integers(0, 255, (33, 37), dtype=np.uint8))
    if syntax:
        dataset.compress(syntax, encoding_plugin=ENCODERS[syntax])
    return written(dataset)


VICTIMS = [compressed(syntax) for syntax in ("", uid.RLELossless, uid.JPEG2000Lossless)]
VICTIMS += [written(build(RAMP, syntax=uid.DeflatedExplicitVRLittleEndian, WindowCenter=9, WindowWidth=9))]
VICTIMS += [
    Path(get_testdata_file(name, download=False)).read_bytes()
    for name in ("SC_rgb_jpeg_gdcm.dcm", "JPEGLSNearLossless_08.dcm", "SC_rgb_small_odd_jpeg.dcm", "JPGExtended.dcm")
]


@settings(deadline=None, max_examples=300)
@given(
    victim=st.sampled_from(VICTIMS),
    places=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 5000)),
)
def test_damage_is_an_image_or_a_reason(victim, places, cut):
    damaged = bytearray(victim)
    for place, byte in places:
        damaged[place % len(damaged)] = byte
    start = time.monotonic()
    for read in (decode_dicom, read_tags):
        with contextlib.suppress(BadImage):
            read(bytes(damaged[:cut]))
    assert time.monotonic() - start < 10


def test_a_decoder_that_dies_is_a_reason_and_prints_nothing(capfd):
    dataset = pydicom.dcmread(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False))
    frame = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    frame[17] = 143  # an unknown colour transform: gdcm aborts
    dataset.PixelData = encapsulate([bytes(frame)])
    with pytest.raises(BadImage, match="damaged or unsupported JPEG Lossless"):
        decode_dicom(written(dataset))
    assert capfd.readouterr() == ("", "")


def test_no_cut_of_compressed_pixels_is_accepted_as_whole():
    for victim in VICTIMS[1:3] + VICTIMS[4:]:
        dataset = pydicom.dcmread(io.BytesIO(victim))
        whole, frame = decode_dicom(victim), get_frame(dataset.PixelData, 0, number_of_frames=1)
        for cut in (20, len(frame) // 2):
            dataset.PixelData = encapsulate([frame[:-cut]])
            try:
                assert np.array_equal(decode_dicom(written(dataset)), whole), dataset.file_meta.TransferSyntaxUID.name
            except BadImage:
                continue


TWO = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "no DICOM file"),
        (written(build(TWO, NumberOfFrames=2, PixelData=bytes(8))), "2 frames"),
        (written(build(TWO, PixelData=bytes(8))), "more than one image"),
        (written(build(TWO, PixelData=bytes(2))), "less than expected"),
        (written(build(TWO, Rows=0)), "no pixels: 2x0"),
        (written(build(TWO, Columns=MAX_SIDE_PX + 1)), f"too large: {MAX_SIDE_PX + 1}x2"),
        (written(build(TWO, Columns=None, BitsStored=8)), "lacks Columns"),
        (written(build(TWO, PixelData=None)), "truncated: no pixels"),
        (written(build(TWO, PixelData=None, Rows=None, SOPClassUID=uid.BasicTextSRStorage)), "Basic Text SR"),
        (written(build(np.zeros((2, 2), np.uint32))), "32 bits"),
        (written(build(TWO, photometric="RGB")), "RGB of 1 samples"),
        (written(build(TWO, WindowCenter=1, WindowWidth=0)), "Window Width"),
        (written(build(TWO, RescaleSlope="1e308", RescaleIntercept="1e308")), "not finite"),
        (written(build(TWO, syntax="1.2.840.10008.1.2.4.100", PixelData=encapsulate([b"12"]))), "unsupported MPEG2"),
    ],
)
def test_what_is_no_radiograph_says_why(content, reason, capfd):
    with pytest.raises(BadImage, match=reason):
        decode_dicom(content)
    assert capfd.readouterr() == ("", "")


def test_a_deflated_bomb_is_not_inflated(monkeypatch):
    monkeypatch.setattr("etl.dicom.MAX_INFLATED_BYTES", 1_000)
    with pytest.raises(BadImage, match="inflates to more than 1000 bytes"):
        shown(np.zeros((40, 40), np.uint8), syntax=uid.DeflatedExplicitVRLittleEndian)


def test_a_huge_jpeg_2000_stream_is_not_decoded():
    dataset = pydicom.dcmread(io.BytesIO(VICTIMS[2]))
    frame = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    size = frame.index(b"\xff\x51") + 6
    for ends in (size, size + 16):  # of the image and of its only tile
        frame[ends : ends + 8] = struct.pack(">II", 60_000, 60_000)
    dataset.PixelData = encapsulate([bytes(frame)])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(BadImage, match="damaged"):
        decode_dicom(written(dataset))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_files_without_prefix_are_recognised_by_their_first_element():
    bare = written(build(TWO))[132:]
    assert looks_like_dicom(bare)
    assert decode_dicom(bare).shape == (2, 2)
    data_set = written(build(RAMP, syntax=uid.ImplicitVRLittleEndian)).partition(b"1.2.840.10008.1.2\x00")[2]
    start = data_set.index(b"\x08\x00\x16\x00")
    assert decode_dicom(data_set[start:]).tolist() == [[0, 64, 128, 191, 255]]
    for other in (
        b"",
        b"\x08\x00",
        b"\x08\x00\x16\x00text",
        b"\x08\x00\x99\x99UI\x00\x00",
        bytes(500),
        zlib.compress(bare),
    ):
        assert not looks_like_dicom(other)


def test_tags_are_read():
    dataset = build(TWO, StudyDate="20240307", StudyTime="091502.123", PatientAge="058Y", PatientSex="F")
    dataset.ViewPosition = "LL"
    assert read_tags(written(dataset)) == Tags("P7", "1.2.3", "20240307091502", "058Y", "F", "LATERAL")
    assert read_tags(written(build(TWO))) == Tags("P7", "1.2.3", "", "", "", "")
    assert read_tags(written(build(TWO, StudyDate="20240307", StudyTime="0915"))).study_time == "20240307091500"
    assert read_tags(written(build(TWO, PatientSex="O"))).sex == ""


@pytest.mark.parametrize(
    ("birth", "study", "age"),
    [
        ("19640308", "20240307", "059Y"),
        ("19640307", "20240307", "060Y"),
        ("20250101", "20240307", ""),
        ("", "20240307", ""),
    ],
)
def test_an_absent_age_is_computed(birth, study, age):
    assert read_tags(written(build(TWO, PatientBirthDate=birth, StudyDate=study))).age == age


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "LLD"}, ""),  # decubitus, taken from the front
        ({"ViewPosition": "RAO", "PatientOrientation": ["A", "F"]}, ""),
        ({"PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"PatientOrientation": ["L", "F"]}, ""),
        ({"PatientOrientation": ""}, ""),
        ({"ViewCodeSequence": "antero-posterior"}, "AP"),
        ({"ViewCodeSequence": "left lateral", "PatientOrientation": ["L", "F"]}, "LATERAL"),
    ],
)
def test_the_view_is_found(tags, view):
    if "ViewCodeSequence" in tags:
        code = pydicom.Dataset()
        code.CodeMeaning = tags["ViewCodeSequence"]
        tags = {**tags, "ViewCodeSequence": [code]}
    assert read_tags(written(build(TWO, **tags))).view == view


def test_tags_need_an_instance_and_may_lack_the_patient():
    dataset = build(TWO)
    content = written(dataset)

    def without(tag):
        return content.replace(dataset[tag].value.encode(), b"\x00" * len(dataset[tag].value))

    assert read_tags(content).patient == "P7"
    assert read_tags(without("PatientID")).patient == ""
    with pytest.raises(BadImage, match="no SOPInstanceUID"):
        read_tags(without("SOPInstanceUID"))


def test_hidden_names_depend_on_the_salt():
    assert hide("P7", "a" * 16) == hide("P7", "a" * 16)
    assert len({hide(patient, salt) for patient in ("P7", "P8") for salt in ("a" * 16, "b" * 16)}) == 4
    # RFC 4231, case 2, cut to 80 bits.
    assert hide("what do ya want for nothing?", "Jefe") == "5bdcc146bf60754e6a04"


def test_the_salt_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcdef")
    assert read_salt() == "0123456789abcdef"
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcde")
    with pytest.raises(InputError, match="15 characters.*secrets.token_hex.*logged with every run"):
        read_salt()
    monkeypatch.delenv("CHEXSCALE_SALT")
    with pytest.raises(InputError, match="0 characters"):
        read_salt()
