"""Reads the elements of DICOM files, whatever state the files are in."""

import errno
import io
import logging
import re
import struct
import warnings
import zlib
from contextlib import contextmanager

import numpy as np
import pydicom
from pydicom import uid
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.filereader import read_dataset, read_preamble

from etl.contract.images.pixels import MAX_SIDE_PX, BadImage

# Bytes of a 16-bit image of the largest size that decode.py reads, and of its tags.
MAX_INFLATED_BYTES = 2 * MAX_SIDE_PX**2 + 1_000_000

# Compressed pixels have a tag, an undefined length, items as fragments, and a delimiter (PS3.5, section A.4).
PIXELS, UNDEFINED, ITEM = b"\xe0\x7f\x10\0", b"\xff\xff\xff\xff", b"\xfe\xff\0\xe0"
DELIMITER, JPEG_END, RLE_HEADER = b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xff\xd9", 64
# Words about objects of Python, which say nothing to people who have a damaged file.
OF_PYTHON = re.compile(r"'\w+' object|object of type|could not broadcast|unpack requires|not subscriptable")

# pydicom also logs its warnings; what matters here is in the reasons.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


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


def read_dicom(content: bytes, is_cut: bool = False, **options) -> pydicom.Dataset:
    """The elements of a DICOM file. options: pydicom.dcmread's. Raises BadImage if it is damaged or not DICOM.

    is_cut: whether these bytes are only the beginning of a file, of which the elements before the pixels are wanted.
    Raises BadImage if they do not reach the pixels: pydicom leaves out without a word what is cut off.
    """
    if not looks_like_dicom(content):
        raise BadImage(f"no DICOM file: starts with {content[:8]!r}" if content else "empty file")
    with damage_is_bad_image("damaged DICOM file", show=False):
        file = io.BytesIO(content)
        read_preamble(file, force=True)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 0x0002)
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[file.tell() :], MAX_INFLATED_BYTES + 1)
            if len(inflated) > MAX_INFLATED_BYTES:
                raise BadImage(f"inflates to more than {MAX_INFLATED_BYTES} bytes")
        _check_byte_order(content[file.tell() : file.tell() + 2], meta.get("TransferSyntaxUID"))
        file = io.BytesIO(content)
        dataset = pydicom.dcmread(file, force=True, **options)
        # It skips a value by moving on, even beyond the end.
        if is_cut and file.tell() >= len(content):
            raise BadImage(f"the pixels do not begin in the first {len(content)} bytes")
        # pydicom drops all elements of a file that ends in its compressed pixels.
        if options or "Rows" in dataset:
            return dataset
        return pydicom.dcmread(io.BytesIO(_with_end(content)), force=True)


def _check_byte_order(group: bytes, syntax: str | None) -> None:
    """Raises BadImage if the elements begin with group 0008 in another byte order than their transfer syntax has."""
    is_big = syntax == uid.ExplicitVRBigEndian
    if syntax and group == (b"\x08\0" if is_big else b"\0\x08"):
        orders = ("little-endian", "big-endian")
        raise BadImage(
            f"wrong Transfer Syntax UID: it says {orders[is_big]} elements, but they are {orders[not is_big]}: "
            "correct (0002,0010)"
        )


def _with_end(content: bytes) -> bytes:
    """The file with the delimiter after its compressed pixels, if nothing else is missing; unchanged if it has none.

    Raises BadImage if pixels are missing (PS3.5, section A.4).
    """
    file = io.BytesIO(content)
    header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    place, size = file.tell() + 12, len(content)
    if "Rows" not in header or content[place - 12 : place - 8] != PIXELS or content[place - 4 : place] != UNDEFINED:
        return content
    start = place
    while content[place : place + 4] == ITEM and place + 8 <= size:
        start, place = place + 8, place + 8 + int.from_bytes(content[place + 4 : place + 8], "little")
    # The last fragment of a JPEG stream ends with the end marker. An RLE stream has none, but its header says where
    # each part lies, so the decoder notices what is missing.
    ends = content[start:place].rstrip(b"\0").endswith(JPEG_END)
    is_whole = ends or (header.file_meta.get("TransferSyntaxUID") == uid.RLELossless and place - start > RLE_HEADER)
    if place > size or not DELIMITER.startswith(content[place:]) or not is_whole:
        raise BadImage("truncated: the compressed pixels end before their delimiter: fetch the file again")
    return content[:place] + DELIMITER


@contextmanager
def damage_is_bad_image(step: str, show: bool = True):
    """Turns the errors of pydicom on damaged files into BadImage, and drops its warnings.

    It converts values when they are asked for and raises nearly every kind of exception then, so no shorter list would
    do; only its calls stand inside. show: whether the message belongs to the reason.
    """
    try:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            yield
    except (BadImage, MemoryError):  # lack of memory is not damage
        raise
    except Exception as error:
        # Nor is it when a process or shared memory is asked for.
        if isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN):
            raise MemoryError(f"{step}: {error.strerror}") from error
        raise BadImage(f"{step}: {words_of(error) if show else type(error).__name__}") from error


def words_of(error: Exception) -> str:
    """One line of the error's message, without words about objects of Python."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # pydicom names the decoder's own reason below.
    line = lines[-1] if lines[0].endswith(":") else lines[0]
    if OF_PYTHON.search(line):
        return "truncated or damaged"
    return re.sub(r"<[\w.]+ object at 0x\w+>", "the stream", line)[:120]
