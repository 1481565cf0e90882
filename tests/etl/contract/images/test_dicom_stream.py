"""Compressed streams of DICOM files: lossy ones, and the reasons why one is not decoded."""

import errno
import os
import resource
import signal
from pathlib import Path

import cv2
import gdcm
import numpy as np
import openjpeg
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.dicom import stream
from etl.contract.images.dicom.decode import decode_dicom
from etl.contract.images.dicom.stream import MAX_DECODE_CPU_S, Stream, read_header
from etl.contract.images.pixels import BadImage
from tests.etl.dicom_files import build, written
from tests.etl.image_files import encoded


def film(bits: int, is_signed: bool) -> pydicom.Dataset:
    """A bright field with black borders and a white marker, under the window of all its bits."""
    rows, columns = np.mgrid[0:64, 0:64]
    grey = 0.25 + 0.5 * np.exp(-((rows - 32) ** 2 + (columns - 32) ** 2) / 500)
    grey += np.random.default_rng(1).normal(0, 0.01, grey.shape)
    grey[:6] = grey[:, :6] = 0
    grey[20:40, 20:26] = grey[34:40, 20:40] = 1
    black = -(2 ** (bits - 1)) if is_signed else 0
    pixels = (np.rint(grey * (2**bits - 1)) + black).astype(np.int16 if is_signed else np.uint16)
    return build(pixels, BitsStored=bits, WindowCenter=black + 2 ** (bits - 1), WindowWidth=2**bits)


def with_stream(dataset: pydicom.Dataset, syntax: str, frame: bytes, **tags) -> bytes:
    dataset.file_meta.TransferSyntaxUID, dataset.PixelData = syntax, encapsulate([frame])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return written(dataset)


def jpeg_2000(pixels: np.ndarray, ratio: int = 0) -> bytes:
    """A stream of 16 bits a sample, as archives make it. ratio: compresses with loss, by the irreversible wavelet."""
    lossy = {"compression_ratios": [ratio]} if ratio else {}
    return bytes(openjpeg.encode(pixels, bits_stored=16, photometric_interpretation=2, **lossy))


def by_gdcm(content: bytes, kind: int, folder: Path, near: int = 0) -> bytes:
    """The whole file in another coding. near: by how much every pixel of near-lossless JPEG-LS may be off."""
    (folder / "in.dcm").write_bytes(content)
    reader, change, writer, codec = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter(), None
    reader.SetFileName(str(folder / "in.dcm"))
    assert reader.Read()
    if near:
        codec = gdcm.JPEGLSCodec()
        codec.SetLossless(False)
        codec.SetLossyError(near)
        change.SetUserCodec(codec)
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(folder / "out.dcm"))
    assert writer.Write()
    return (folder / "out.dcm").read_bytes()


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("is_signed", [False, True])
def test_what_lossy_coding_adds_beyond_black_and_white_stays_there(bits, is_signed, tmp_path):
    original = film(bits, is_signed)
    want = decode_dicom(written(original)).astype(int)
    near_lossless = gdcm.TransferSyntax.JPEGLSNearLossless
    files = [by_gdcm(written(original), near_lossless, tmp_path, near) for near in (1, 5)]
    files.append(with_stream(film(bits, is_signed), uid.JPEG2000, jpeg_2000(original.pixel_array, 8)))
    for content in files:
        assert np.abs(decode_dicom(content).astype(int) - want).max() < 30


def test_a_reversible_stream_of_a_lossy_syntax_may_have_an_overlay():
    dataset = film(12, False)
    plain, pixels = decode_dicom(written(dataset)), dataset.pixel_array
    pixels[10:20, 10:30] |= 0x8000
    frame = jpeg_2000(pixels)
    assert read_header(frame) == Stream(16, False, 1)
    assert np.array_equal(decode_dicom(with_stream(dataset, uid.JPEG2000, frame)), plain)
    # With layers left out, which the file says, the same wavelet is lossy.
    lossy = decode_dicom(with_stream(dataset, uid.JPEG2000, frame, LossyImageCompression="01"))
    assert (lossy[10:20, 10:30] == 255).all()


@pytest.mark.parametrize(
    ("name", "bits", "is_lossy"),
    [
        ("JPGExtended.dcm", 12, True),
        ("SC_rgb_jpeg_lossy_gdcm.dcm", 8, True),
        ("SC_rgb_jpeg_gdcm.dcm", 8, False),
        ("JPEGLSNearLossless_16.dcm", 16, True),
        ("MR_small_jpeg_ls_lossless.dcm", 16, False),
        ("MR_small_jp2klossless.dcm", 16, False),
        ("JPEG2000.dcm", 16, True),
    ],
)
def test_the_header_of_a_stream_says_whether_it_is_lossy(name, bits, is_lossy):
    dataset = pydicom.dcmread(get_testdata_file(name, download=False))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    assert read_header(frame) == Stream(bits, is_lossy, dataset.SamplesPerPixel)


@given(
    st.binary(max_size=80), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \xff\x4f\xff\x51"])
)
def test_a_damaged_header_has_facts_too(rest, start):
    header = read_header(start + rest)
    assert 0 <= header.bits <= 255 and header.is_lossy in (True, False)


def compressed() -> bytes:
    return with_stream(dataset := film(12, False), uid.JPEG2000Lossless, jpeg_2000(dataset.pixel_array))


def raises_no_memory(*arguments, **options):
    raise MemoryError


def is_killed(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("decode", [raises_no_memory, is_killed])
def test_lack_of_memory_in_the_decoder_is_not_damage(decode, monkeypatch):
    content = compressed()
    monkeypatch.setattr(stream, "pixel_array", decode)
    with pytest.raises(MemoryError, match="JPEG 2000"):
        decode_grey(content)


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN])
def test_a_decoder_that_cannot_be_started_is_not_damage(number, monkeypatch):
    def fork():
        raise OSError(number, os.strerror(number))

    content = compressed()
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(MemoryError, match="cannot be decoded"):
        decode_grey(content)


def spins(*arguments, **options):
    while True:
        pass


def stops(*arguments, **options):
    os.kill(os.getpid(), signal.SIGABRT)


@pytest.mark.parametrize(
    ("decode", "reason"), [(spins, "took longer than 1 s"), (stops, r"died of signal 6 \(Aborted\)")]
)
def test_why_a_decoder_was_stopped(decode, reason, monkeypatch):
    content = compressed()
    monkeypatch.setattr(stream, "pixel_array", decode)
    monkeypatch.setattr(stream, "MAX_DECODE_CPU_S", 1)
    with pytest.raises(BadImage, match=f"damaged or unsupported JPEG 2000 .*{reason}"):
        decode_grey(content)


def test_a_lower_hard_limit_of_cpu_time_is_kept():
    content, status = compressed(), 1
    plain, pid = decode_grey(content), os.fork()
    # In a process of its own, because a hard limit cannot be raised again.
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (MAX_DECODE_CPU_S // 2, MAX_DECODE_CPU_S // 2))
            status = int(not np.array_equal(decode_grey(content), plain))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "YBR_FULL", "RGB"])
def test_a_damaged_baseline_jpeg_is_refused_as_in_a_file_of_its_own(photometric):
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(128, 90, (240, 200, 3)), (0, 0), 1.5).clip(0, 255)
    pixels = noise.astype(np.uint8) if photometric != "MONOCHROME2" else noise[..., 0].astype(np.uint8)
    frame = encoded(pixels, "JPEG", quality=90, keep_rgb=photometric == "RGB")

    def stored(frame: bytes) -> bytes:
        dataset = build(pixels, photometric, WindowCenter=128, WindowWidth=256)
        return with_stream(dataset, uid.JPEGBaseline8Bit, frame)

    def read(content: bytes) -> np.ndarray:
        return decode_dicom(content, colour=True)

    expected = decode_colour(frame) if photometric != "MONOCHROME2" else decode_grey(frame)
    shown = read(stored(frame))
    assert np.abs(shown.astype(int) - expected).mean() < 3
    tables = frame.index(b"\xff\xdb")
    assert np.array_equal(read(stored(frame[:tables] + b"abc" + frame[tables:])), shown)
    middle = len(frame) // 2
    for damaged in (
        frame[:middle] + bytes(2000) + frame[middle + 2000 :],
        frame[:middle] + frame[middle + 2000 :],
        frame[:middle] + b"\xff\xd9",
    ):
        with pytest.raises(BadImage, match="damaged JPEG"):
            decode_colour(damaged)
        with pytest.raises(BadImage, match="JPEG Baseline .*damaged JPEG"):
            read(stored(damaged))


def test_the_reason_of_the_decoder_is_shown():
    frame = jpeg_2000(film(12, False).pixel_array)

    def reason(frame: bytes, syntax=uid.JPEG2000Lossless, **tags) -> str:
        with pytest.raises(BadImage) as error:
            decode_dicom(with_stream(film(12, False), syntax, frame, **tags))
        return str(error.value).partition("damaged or unsupported ")[2]

    assert "stream of 64x64 pixels, 64x32 in the header" in reason(frame, Rows=32)
    assert "stream of 16 bits, 8 in the header" in reason(frame, BitsAllocated=8, BitsStored=8, HighBit=7)
    ok, jpeg = cv2.imencode(".jpg", np.zeros((64, 64), np.uint8))
    assert ok and "stream of 8 bits, 16 in the header" in reason(jpeg.tobytes(), uid.JPEGBaseline8Bit)
    assert "cannot identify image file the stream" in reason(b"no JPEG 2000")
    for damaged in (reason(frame[: len(frame) // 2]), reason(b"\xff\xd8 damaged", uid.JPEGLosslessSV1)):
        assert len(damaged.partition(": ")[2]) > 5 and "0x" not in damaged
