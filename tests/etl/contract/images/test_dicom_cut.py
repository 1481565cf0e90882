"""DICOM files that are cut, or whose transfer syntax is wrong, not read or missing: each gets a reason that helps."""

import io

import cv2
import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.encaps import get_frame

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.pixels import BadImage
from tests.etl.contract.images.test_dicom_stream import by_gdcm, film, with_stream
from tests.etl.dicom_files import ENCODERS, RAMP, build, written
from tests.etl.image_files import encoded

NOISE = np.random.default_rng(0).integers(0, 255, (33, 37), dtype=np.uint8)
TRUNCATED = "^truncated: the compressed pixels end before their delimiter: fetch the file again"


def compressed(syntax: str) -> bytes:
    dataset = build(NOISE)
    dataset.compress(syntax, encoding_plugin=ENCODERS[syntax])
    return written(dataset)


def in_fragments(frame: bytes, syntax: str) -> bytes:
    dataset = build(NOISE, WindowCenter=128, WindowWidth=256)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([frame], fragments_per_frame=3)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return written(dataset)


JPEG = encoded(NOISE, "JPEG")
WHOLE = {syntax.name: compressed(syntax) for syntax in ENCODERS}
WHOLE["JPEG"] = with_stream(build(NOISE), uid.JPEGBaseline8Bit, JPEG)
WHOLE["JPEG in fragments"] = in_fragments(JPEG, uid.JPEGBaseline8Bit)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_that_lacks_only_the_delimiter_is_read(kind):
    whole = decode_grey(WHOLE[kind])
    for cut in range(1, 9):
        assert np.array_equal(decode_grey(WHOLE[kind][:-cut]), whole)


@given(st.sampled_from(sorted(WHOLE)), st.integers(9, 100_000))
def test_every_other_cut_of_compressed_pixels_is_named(kind, cut):
    content = WHOLE[kind]
    pixels = content.index(b"\xe0\x7f\x10\0OB")
    end = max(pixels + 12, len(content) - cut)
    # A byte that fills up the last fragment is no loss.
    if content[end:-8].strip(b"\0") or end == pixels + 12:
        with pytest.raises(BadImage, match=TRUNCATED):
            decode_grey(content[:end])


@pytest.mark.parametrize("kind", [gdcm.TransferSyntax.JPEGLosslessProcess14_1, gdcm.TransferSyntax.JPEGLSLossless])
def test_a_cut_stream_is_named_without_words_about_objects(kind, tmp_path):
    content = by_gdcm(written(film(12, False)), kind, tmp_path)
    dataset = pydicom.dcmread(io.BytesIO(content))
    assert np.array_equal(decode_grey(content[:-8]), decode_grey(content))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    for cut in (len(frame) // 2, len(frame) // 4):
        with pytest.raises(BadImage, match="damaged or unsupported JPEG.*: truncated or damaged$"):
            decode_grey(with_stream(dataset, dataset.file_meta.TransferSyntaxUID, frame[:cut]))
    # The stream as a file of its own.
    for decode in (decode_grey, decode_colour):
        with pytest.raises(BadImage, match="^a (JPEG-LS image|lossless JPEG of 16 bits) is not read: save it as PNG"):
            decode(frame)


def of_syntax(content: bytes, old: str, new: str) -> bytes:
    """The file under another transfer syntax, whose name is no longer."""
    size = len(old) + len(old) % 2
    assert len(new) <= size and content.count(old.encode().ljust(size, b"\0")) == 1
    return content.replace(old.encode().ljust(size, b"\0"), new.encode().ljust(size, b"\0"))


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.92", "1.2.3.4", "1.2.840.113619.5.2"]
)
def test_a_transfer_syntax_that_is_not_read_is_named(syntax):
    content = of_syntax(WHOLE["JPEG"], uid.JPEGBaseline8Bit, syntax)
    with pytest.raises(BadImage, match=rf"^Transfer Syntax UID {syntax}( \(.*\))? is not read: convert the file"):
        decode_grey(content)


def test_an_empty_transfer_syntax_is_a_missing_one():
    for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian):
        content = written(build(RAMP, syntax=syntax))
        assert np.array_equal(decode_grey(of_syntax(content, syntax, "")), decode_grey(content))


def test_a_wrong_byte_order_is_named():
    little, big = (written(build(RAMP, syntax=kind)) for kind in (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian))
    with pytest.raises(BadImage, match="^wrong Transfer Syntax UID: it says big-endian elements, but they are little"):
        decode_grey(of_syntax(little, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian))
    with pytest.raises(BadImage, match="^wrong Transfer Syntax UID: it says little-endian elements, but they are big"):
        decode_grey(of_syntax(big, uid.ExplicitVRBigEndian, uid.ExplicitVRLittleEndian))


def test_a_stream_of_other_samples_than_the_header_is_named():
    colours = np.dstack([NOISE] * 3)
    grey = get_frame(pydicom.dcmread(io.BytesIO(compressed(uid.JPEG2000Lossless))).PixelData, 0, number_of_frames=1)
    for frame, syntax in ((encoded(colours, "JPEG"), uid.JPEGBaseline8Bit), (grey, uid.JPEG2000Lossless)):
        samples = 3 if syntax == uid.JPEGBaseline8Bit else 1
        dataset = build(NOISE if samples == 3 else colours, "MONOCHROME2" if samples == 3 else "RGB")
        with pytest.raises(BadImage, match=f"stream of {samples} samples a pixel, {4 - samples} in the header"):
            decode_colour(with_stream(dataset, syntax, frame))


def test_a_cut_webp_is_truncated():
    content = encoded(NOISE, "WEBP")
    for end in (20, 40, len(content) // 2):
        with pytest.raises(BadImage, match=f"^truncated WEBP: {end} of {len(content)} bytes"):
            decode_grey(content[:end])


def test_kinds_of_jpeg_that_are_not_read_are_named():
    ok, progressive = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert ok and decode_grey(progressive.tobytes()).shape == NOISE.shape
    frame = JPEG.index(b"\xff\xc0")
    for marker, bits, name in (
        (0xC1, 12, "a JPEG of 12 bits"),
        (0xC3, 8, "a lossless JPEG of 8 bits"),
        (0xF7, 8, "a JPEG-LS image"),
    ):
        content = JPEG[:frame] + bytes([0xFF, marker]) + JPEG[frame + 2 : frame + 4] + bytes([bits]) + JPEG[frame + 5 :]
        with pytest.raises(BadImage, match=f"^{name} is not read: save it as PNG"):
            decode_grey(content)
