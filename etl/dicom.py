"""DICOM files to grey images and tags: the one owner of pydicom."""

import faulthandler
import io
import logging
import mmap
import os
import re
import resource
import struct
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import pixel_array

from etl.dicom_grey import palette, to_grey, to_luminance
from etl.images import MAX_SIDE_PX, BadImage

# Pillow and openjpeg refuse damaged streams that gdcm fills; gdcm alone reads the other two kinds of JPEG.
DECODERS = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), "pillow"),
    **dict.fromkeys((*uid.JPEGLSTransferSyntaxes, uid.JPEGLossless, uid.JPEGLosslessSV1), "gdcm"),
    **dict.fromkeys(uid.JPEG2000TransferSyntaxes, "pylibjpeg"),
}
# (implicit VR, little endian) of files that do not name their transfer syntax.
UNNAMED = {
    (True, True): uid.ImplicitVRLittleEndian,
    (False, True): uid.ExplicitVRLittleEndian,
    (False, False): uid.ExplicitVRBigEndian,
}
# A 16-bit image of the largest size that etl.images reads, and its tags.
MAX_INFLATED_BYTES = 2 * MAX_SIDE_PX**2 + 1_000_000
# A radiograph takes about a second; far longer ones are damaged.
MAX_DECODE_CPU_S = 60
GREY = ("MONOCHROME1", "MONOCHROME2")
# View Position (PS3.3 C.8.1.1) and the meanings of View Code Sequence (PS3.16 CID 4010), letters only.
# Oblique and decubitus views are none of these.
VIEWS = {
    **dict.fromkeys(("PA", "POSTEROANTERIOR"), "PA"),
    **dict.fromkeys(("AP", "ANTEROPOSTERIOR"), "AP"),
    **dict.fromkeys(("LL", "RL", "LATERAL", "LEFTLATERAL", "RIGHTLATERAL"), "LATERAL"),
}
NEEDED = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "BitsStored", "PixelRepresentation")
NEEDED += ("PhotometricInterpretation",)
TAGS = ("PatientID", "SOPInstanceUID", "StudyDate", "StudyTime", "PatientAge", "PatientBirthDate", "PatientSex")
TAGS += ("ViewPosition", "ViewCodeSequence", "PatientOrientation")

# pydicom logs what it warns of; what matters here is in the reasons.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
# Here, because each forked decoder would load Pillow's formats anew.
Image.init()


@dataclass(frozen=True)
class Tags:
    """What a DICOM file says of its image; an empty text: unknown."""

    patient: str
    """Patient ID, as it stands; may be empty"""
    instance: str
    """SOP Instance UID"""
    study_time: str
    """YYYYMMDDhhmmss"""
    age: str
    """such as 058Y or 018M; from the dates of birth and study where there is no Patient's Age"""
    sex: str
    """F or M"""
    view: str
    """PA, AP or LATERAL"""


def looks_like_dicom(content: bytes) -> bool:
    """Whether these bytes have DICOM's prefix, or start with a well-formed element of group 0002 or 0008."""
    if content[128:132] == b"DICM":
        return True
    if len(content) < 8:
        return False
    for order in "<>":
        group, number, vr = struct.unpack_from(f"{order}HH2s", content)
        tag = group << 16 | number
        if group in (0x0002, 0x0008) and (number == 0 or dictionary_has_tag(tag)):
            (implicit_length,) = struct.unpack_from("<I", content, 4)
            explicit = vr.decode("latin-1") == ("UL" if number == 0 else dictionary_VR(tag))
            return explicit or (order == "<" and implicit_length % 2 == 0 and implicit_length <= len(content) - 8)
    return False


def decode_dicom(content: bytes) -> np.ndarray:
    """Bytes of a DICOM file to (height, width) uint8 grey as a viewer shows it first.

    Grey: modality LUT or rescale, then the first VOI LUT, else the first window, else the range of the pixels without
    padding, over 0..255 (PS3.3 C.11.1 and C.11.2); MONOCHROME1 inverted. Presentation LUT Shape repeats the latter in
    the image objects and is not applied again. Colour becomes luminance (ITU-R BT.601).
    Raises BadImage for anything that is not one whole image of 8 or 16 bits, of at most MAX_SIDE_PX a side.
    """
    dataset = _read(content)
    with _damage_is_bad_image("damaged header"):
        shape = _check_header(dataset)
    with _damage_is_bad_image("cannot be decoded"):
        pixels = _decode_pixels(dataset, shape)
    if len(shape) == 3:
        return to_luminance(pixels, dataset.BitsStored)
    codes = pixels.view(f"u{pixels.itemsize}")
    with _damage_is_bad_image("damaged grey or colour table"):
        # What a pixel shows depends on its value alone, so it is worked out once a value, in the order of the codes.
        stored = np.arange(256**pixels.itemsize, dtype=codes.dtype).view(pixels.dtype)
        table = (
            to_grey(dataset, stored, codes) if dataset.PhotometricInterpretation in GREY else palette(dataset, stored)
        )
    return table[codes]


def read_tags(content: bytes) -> Tags:
    """The tags of a DICOM file, without its pixels. Raises BadImage where it is none or has no SOP Instance UID."""
    dataset = _read(content, stop_before_pixels=True, specific_tags=list(TAGS))
    # The values of these tags tell who it is: they must not get into a reason.
    with _damage_is_bad_image("damaged tags", show=False):
        cells = {tag: str(dataset.get(tag) or "").strip() for tag in TAGS}
        view = _find_view(dataset, cells["ViewPosition"])
    if not cells["SOPInstanceUID"]:
        raise BadImage("no SOPInstanceUID")
    time = re.sub(r"\D", "", cells["StudyTime"].partition(".")[0])[:6].ljust(6, "0")
    study = _parse_date(cells["StudyDate"])
    return Tags(
        patient=cells["PatientID"],
        instance=cells["SOPInstanceUID"],
        study_time=f"{study:%Y%m%d}{time}" if study else "",
        age=_find_age(cells["PatientAge"], _parse_date(cells["PatientBirthDate"]), study),
        sex=cells["PatientSex"] if cells["PatientSex"] in ("F", "M") else "",
        view=view,
    )


@contextmanager
def _damage_is_bad_image(step: str, show: bool = True):
    """Turns what pydicom raises on damaged files into BadImage, and its warnings into nothing.

    It converts values when they are asked for and raises nearly every kind of exception then, so no shorter list would
    do; only its calls stand inside. show: whether the message belongs to the reason.
    """
    try:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            yield
    except (BadImage, MemoryError):  # a lack of memory is no damage
        raise
    except Exception as error:
        message = str(error).partition("\n")[0][:120] if show else ""
        raise BadImage(f"{step}: {message or type(error).__name__}") from error


def _read(content: bytes, **options) -> pydicom.Dataset:
    if not looks_like_dicom(content):
        raise BadImage(f"no DICOM file: starts with {content[:8]!r}" if content else "empty file")
    with _damage_is_bad_image("damaged DICOM file", show=False):
        file = io.BytesIO(content)
        read_preamble(file, force=True)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 0x0002)
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[file.tell() :], MAX_INFLATED_BYTES + 1)
            if len(inflated) > MAX_INFLATED_BYTES:
                raise BadImage(f"inflates to more than {MAX_INFLATED_BYTES} bytes")
        return pydicom.dcmread(io.BytesIO(content), force=True, **options)


def _check_header(dataset: pydicom.Dataset) -> tuple[int, ...]:
    """(rows, columns) of a grey image, (rows, columns, 3) of a coloured one."""
    if "PixelData" not in dataset:
        kind = uid.UID(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        name = "unknown object" if kind.name == kind else kind.name
        raise BadImage(f"truncated: no pixels ({name})" if "Rows" in dataset else f"no image: {name}")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise BadImage(f"{dataset.NumberOfFrames} frames, expected one")
    missing = [tag for tag in NEEDED if dataset.get(tag) is None]
    if missing:
        raise BadImage(f"header lacks {', '.join(missing)}")
    rows, columns, bits, samples = (int(dataset.get(tag)) for tag in NEEDED[:4])
    if rows * columns == 0:
        raise BadImage(f"no pixels: {columns}x{rows}")
    if max(rows, columns) > MAX_SIDE_PX:
        raise BadImage(f"too large: {columns}x{rows} pixels, limit {MAX_SIDE_PX} a side")
    if bits not in (1, 8, 16):
        raise BadImage(f"pixels of {bits} bits, expected 8 or 16")
    if dataset.get("HighBit", dataset.BitsStored - 1) != dataset.BitsStored - 1:
        raise BadImage(f"high bit {dataset.HighBit} of {dataset.BitsStored} stored bits, expected the last")
    photometric = dataset.PhotometricInterpretation
    if samples != (1 if photometric in (*GREY, "PALETTE COLOR") else 3):
        raise BadImage(f"{photometric} of {samples} samples a pixel")
    return (rows, columns) if samples == 1 else (rows, columns, 3)


def _decode_pixels(dataset: pydicom.Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels of `shape`, uint8, uint16, int8 or int16: bits beyond the stored ones masked, YBR turned into RGB."""
    syntax = dataset.file_meta.setdefault("TransferSyntaxUID", UNNAMED[dataset.original_encoding]).value
    if not syntax.is_encapsulated:
        pixels = pixel_array(dataset)
        if pixels.shape != shape:
            raise BadImage(f"pixels of more than one image: {pixels.shape}, expected {shape}")
        return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    pixels = np.dtype(f"{'ui'[dataset.PixelRepresentation]}{dataset.BitsAllocated // 8}")
    shared = mmap.mmap(-1, int(np.prod(shape)) * pixels.itemsize)
    image = np.frombuffer(shared, pixels).reshape(shape)
    child = os.fork()
    if child == 0:
        _decode_and_exit(dataset, image)
    _, status = os.waitpid(child, 0)
    if status:
        raise BadImage(f"cannot be decoded: damaged or unsupported {syntax.name}")
    return image


def _decode_and_exit(dataset: pydicom.Dataset, image: np.ndarray) -> None:
    """Fills `image`, in a process of its own: some damaged streams make gdcm abort, and all decoders print."""
    status = 1
    try:
        faulthandler.disable()
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_DECODE_CPU_S, MAX_DECODE_CPU_S))
        if dataset.file_meta.TransferSyntaxUID == uid.JPEGExtended12Bit and dataset.BitsStored > 8:
            # Pillow stops at 8 bits. gdcm goes by the stream, but pydicom would not ask it under this name.
            dataset.file_meta.TransferSyntaxUID = uid.JPEGLossless
        decoder = DECODERS.get(dataset.file_meta.TransferSyntaxUID, "")
        if decoder in ("pillow", "pylibjpeg"):
            # These two make an image of the stream's size, which may be far above that of the header.
            frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
            if Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")).size != image.shape[1::-1]:
                raise BadImage("the stream has another size than the header")
        pixels = pixel_array(dataset, decoding_plugin=decoder)
        if pixels.shape == image.shape and pixels.dtype == image.dtype:
            image[...] = pixels
            status = 0
    finally:
        os._exit(status)


def _find_view(dataset: pydicom.Dataset, position: str) -> str:
    """By View Position, else View Code Sequence, else Patient Orientation: rows that run front to back are lateral."""
    named = [position, *(str(code.get("CodeMeaning")) for code in dataset.get("ViewCodeSequence") or [])]
    for name in named:
        view = VIEWS.get(re.sub("[^A-Z]", "", name.upper()))
        if view:
            return view
    orientation = dataset.get("PatientOrientation") or [""]
    return "LATERAL" if not any(named[:1]) and orientation[0][:1] in ("A", "P") else ""


def _parse_date(cell: str) -> datetime | None:
    try:
        return datetime.strptime(cell.replace(".", ""), "%Y%m%d")
    except ValueError:
        return None


def _find_age(cell: str, birth: datetime | None, study: datetime | None) -> str:
    if re.fullmatch(r"\d{1,3}[YMWD]", cell):
        return cell
    if not birth or not study or study < birth:
        return ""
    return f"{study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day)):03d}Y"
