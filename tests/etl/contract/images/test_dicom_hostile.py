"""DICOM files that are damaged, unsupported, or made to do harm."""

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
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame

from etl.contract.images.dicom.decode import decode_dicom
from etl.contract.images.dicom.elements import looks_like_dicom
from etl.contract.images.dicom.tags import read_tags
from etl.contract.images.pixels import MAX_SIDE_PX, BadImage
from tests.etl.dicom_files import ENCODERS, RAMP, TWO, build, shown, written

SHIPPED = sorted(file for file in Path(pydicom.__path__[0], "data/test_files").rglob("*") if file.is_file())


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_file_of_pydicom_decodes_or_says_why_not(file, capfd, caplog, recwarn):
    content = file.read_bytes()
    try:
        grey = decode_dicom(content)
        assert (grey.ndim, grey.dtype) == (2, np.uint8)
    except BadImage as reason:
        assert 0 < len(str(reason)) < 250
    try:
        assert isinstance(read_tags(content).instance, str)
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


@settings(max_examples=300)
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
        (written(build(TWO, PixelData=b"")), "truncated: no pixels"),
        (written(build(TWO, PixelData=None, FloatPixelData=bytes(16))), "^floating-point pixels, expected whole"),
        (written(build(TWO, PixelData=None, DoubleFloatPixelData=bytes(32))), "^floating-point pixels, expected whole"),
        (written(build(TWO, photometric="")), "^header lacks a value of PhotometricInterpretation$"),
        (
            written(build(TWO, PhotometricInterpretation=None, Rows=None)),
            "lacks Rows, PhotometricInterpretation$",
        ),
        (written(build(TWO, PixelData=None, Rows=None, SOPClassUID=uid.BasicTextSRStorage)), "Basic Text SR"),
        (written(build(np.zeros((2, 2), np.uint32))), "32 bits"),
        (written(build(TWO, photometric="RGB")), "RGB of 1 samples"),
        (written(build(TWO, RescaleSlope="1e308", RescaleIntercept="1e308")), "not finite"),
        (
            written(build(TWO, syntax="1.2.840.10008.1.2.4.100", PixelData=encapsulate([b"12"]))),
            "MPEG2 .* is not",
        ),
    ],
)
def test_a_file_that_is_no_radiograph_gets_a_reason(content, reason, capfd):
    with pytest.raises(BadImage, match=reason):
        decode_dicom(content)
    assert capfd.readouterr() == ("", "")


def test_a_deflated_bomb_is_not_inflated(monkeypatch):
    monkeypatch.setattr("etl.contract.images.dicom.elements.MAX_INFLATED_BYTES", 1_000)
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
