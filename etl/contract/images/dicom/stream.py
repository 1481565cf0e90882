"""Decodes the compressed streams of DICOM files, in a process of their own."""

import faulthandler
import io
import mmap
import os
import resource
import signal
from typing import NamedTuple

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array

from etl.contract.images.dicom.bits import keep_stored_bits
from etl.contract.images.dicom.elements import words_of
from etl.contract.images.jpeg import decode_jpeg
from etl.contract.images.pixels import BadImage

# Pillow, after decode_jpeg's check, and openjpeg refuse damaged streams, which gdcm fills up; only gdcm reads the other
# two kinds of JPEG.
DECODERS = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), "pillow"),
    **dict.fromkeys((*uid.JPEGLSTransferSyntaxes, uid.JPEGLossless, uid.JPEGLosslessSV1), "gdcm"),
    **dict.fromkeys(uid.JPEG2000TransferSyntaxes, "pylibjpeg"),
}
# A radiograph takes about a second; far longer ones are damaged.
MAX_DECODE_CPU_S = 60
# Exit codes of the decoding process: it left a reason behind the pixels, or ran out of memory.
REFUSED, NO_MEMORY = 1, 2
REASON_BYTES = 100
JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "

# Loaded here, because each forked decoder would load Pillow's formats again.
Image.init()


class Stream(NamedTuple):
    """What the header of a stream says."""

    bits: int = 0
    """of a sample; 0: unknown"""
    is_lossy: bool = False
    samples: int = 0
    """of a pixel; 0: unknown"""


def decode_stream(dataset: pydicom.Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels of `shape`, of the header's type, from the compressed stream; within the range of the stored bits.

    Raises BadImage with the decoder's reason, MemoryError if there is too little memory.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    pixels = np.dtype(f"{'ui'[dataset.PixelRepresentation]}{dataset.BitsAllocated // 8}")
    count = int(np.prod(shape))
    shared = mmap.mmap(-1, count * pixels.itemsize + REASON_BYTES)
    image = np.frombuffer(shared, pixels, count).reshape(shape)
    reason = np.frombuffer(shared, "u1", REASON_BYTES, count * pixels.itemsize)
    child = os.fork()
    if child == 0:
        _decode_and_exit(dataset, image, reason)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # The kernel kills the process that takes the last memory.
    if status in (NO_MEMORY, -signal.SIGKILL):
        raise MemoryError(f"not enough memory to decode {syntax.name}: run fewer tasks at a time, or give them more")
    if status == -signal.SIGXCPU:
        said = f"decoding took longer than {_cpu_limit()} s"
    elif status < 0:
        said = f"the decoder died of signal {-status} ({signal.strsignal(-status)})"
    else:
        said = reason.tobytes().rstrip(b"\0").decode(errors="ignore")
    if status:
        raise BadImage(f"cannot be decoded: damaged or unsupported {syntax.name}: {said or 'the decoder failed'}")
    return keep_stored_bits(image, dataset, _is_lossy(dataset))


def _is_lossy(dataset: pydicom.Dataset) -> bool:
    """Whether pixels may exceed the stored bits by a little. No overlay survives such a coding."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == uid.RLELossless:
        return False
    stream = read_header(get_frame(dataset.PixelData, 0, number_of_frames=1))
    # A reversible wavelet is lossy too where the encoder left out layers; the file then says so.
    is_lossy = stream.is_lossy or (syntax == uid.JPEG2000 and dataset.get("LossyImageCompression") == "01")
    return is_lossy and stream.bits > dataset.BitsStored


def read_header(frame: bytes) -> Stream:
    """Reads the markers before the coded data of JPEG (T.81, B.2), JPEG-LS (T.87, C.2) and JPEG 2000 (T.800, A.4).

    JPEG 2000 is lossy with the irreversible wavelet, JPEG-LS if its NEAR is not 0.
    """
    # A JP2 file has its codestream in one of its boxes.
    place = max(frame.find(b"\xff\x4f\xff\x51"), 0) if frame.startswith(JP2_SIGNATURE) else 0
    bits, samples, place = 0, 0, place + 2
    while frame[place : place + 1] == b"\xff":
        marker, length = frame[place + 1 : place + 2], int.from_bytes(frame[place + 2 : place + 4])
        segment = frame[place + 4 : place + 2 + length]
        if marker == b"\xff":  # fill
            place += 1
            continue
        if marker in (b"\xc0", b"\xc1", b"\xc2", b"\xc3"):
            return Stream(segment[0] if segment else 0, marker != b"\xc3", segment[5] if len(segment) > 5 else 0)
        if marker == b"\xf7":  # JPEG-LS; its NEAR follows
            bits, samples = (segment[0], segment[5]) if len(segment) > 5 else (0, 0)
        elif marker == b"\x51" and len(segment) > 36:
            bits, samples = (segment[36] & 127) + 1, int.from_bytes(segment[34:36])
        elif marker == b"\x52":
            return Stream(bits, segment[9:10] == b"\0", samples)
        elif marker == b"\xda":
            near = 1 + 2 * segment[0] if segment else 0
            return Stream(bits, segment[near : near + 1] not in (b"", b"\0"), samples)
        place += 2 + length
    return Stream(bits, False, samples)


def _cpu_limit() -> int:
    """Seconds of CPU time for a stream. A process may lower its hard limit, but not raise it."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    return MAX_DECODE_CPU_S if hard == resource.RLIM_INFINITY else min(MAX_DECODE_CPU_S, hard - 1)


def _decode_and_exit(dataset: pydicom.Dataset, image: np.ndarray, reason: np.ndarray) -> None:
    """Fills `image`, else `reason`. Damaged streams can abort gdcm, and all decoders print."""
    status = REFUSED
    try:
        faulthandler.disable()
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # At its hard limit, a process is killed as if memory had run out.
        resource.setrlimit(resource.RLIMIT_CPU, (_cpu_limit(), _cpu_limit() + 1))
        _decode_into(image, dataset)
        status = 0
    except MemoryError:
        status = NO_MEMORY
    except Exception as error:
        said = words_of(error).encode()[:REASON_BYTES]
        reason[: len(said)] = np.frombuffer(said, "u1")
    finally:
        os._exit(status)


def _decode_into(image: np.ndarray, dataset: pydicom.Dataset) -> None:
    frame, syntax = get_frame(dataset.PixelData, 0, number_of_frames=1), dataset.file_meta.TransferSyntaxUID
    if syntax == uid.JPEGExtended12Bit and dataset.BitsStored > 8:
        # Pillow stops at 8 bits. gdcm follows the stream, but pydicom would not ask it for this transfer syntax.
        dataset.file_meta.TransferSyntaxUID = uid.JPEGLossless
    decoder = DECODERS.get(dataset.file_meta.TransferSyntaxUID, "")
    if decoder in ("pillow", "pylibjpeg"):
        # These two make an image of the stream's size, which may be far larger than the header's.
        Image.MAX_IMAGE_PIXELS = None
        opened = Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000"))
        width, height = opened.size
        if (height, width) != image.shape[:2]:
            raise BadImage(f"stream of {width}x{height} pixels, {image.shape[1]}x{image.shape[0]} in the header")
        if opened.format == "JPEG":
            # Pillow drops the warnings of libjpeg; its colours are those that the file declares.
            decode_jpeg(frame, opened, opened.mode)
    stream = Stream() if syntax == uid.RLELossless else read_header(frame)
    if stream.bits > dataset.BitsAllocated or (decoder == "pillow" and dataset.BitsAllocated > 8):
        raise BadImage(f"stream of {stream.bits} bits, {dataset.BitsAllocated} in the header")
    if stream.samples not in (0, dataset.SamplesPerPixel):
        raise BadImage(f"stream of {stream.samples} samples a pixel, {dataset.SamplesPerPixel} in the header")
    if decoder == "gdcm" and dataset.BitsStored < stream.bits:
        # gdcm drops the bits beyond the stored ones.
        dataset.BitsStored, dataset.HighBit = stream.bits, stream.bits - 1
    pixels = pixel_array(dataset, decoding_plugin=decoder, correct_unused_bits=False)
    if pixels.shape != image.shape or pixels.dtype != image.dtype:
        raise BadImage(f"pixels {pixels.dtype} of {pixels.shape}, header says {image.dtype} of {image.shape}")
    image[...] = pixels
