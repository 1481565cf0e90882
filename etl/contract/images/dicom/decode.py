"""The pixels of DICOM files, as they are to be shown."""

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.pixels import get_decoder, pixel_array

from etl.contract.images.dicom.bits import keep_stored_bits
from etl.contract.images.dicom.elements import damage_is_bad_image, read_dicom
from etl.contract.images.dicom.grey import palette, render, to_grey
from etl.contract.images.dicom.stream import decode_stream
from etl.contract.images.orientation import UPRIGHT, patient_orientation, turn
from etl.contract.images.pixels import BadImage, check_size

# (implicit VR, little endian) of files that do not name their transfer syntax.
UNNAMED = {
    (True, True): uid.ImplicitVRLittleEndian,
    (False, True): uid.ExplicitVRLittleEndian,
    (False, False): uid.ExplicitVRBigEndian,
}
# Spacings are measured; so little of an error is not seen.
MAX_OBLONG = 0.01
GREY = ("MONOCHROME1", "MONOCHROME2")
NEEDED = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "BitsStored", "PixelRepresentation")
NEEDED += ("PhotometricInterpretation",)
# Pixel Measures, Frame VOI LUT and Pixel Value Transformation (PS3.3, C.7.6.16.2).
FRAME_MACROS = ("PixelMeasuresSequence", "FrameVOILUTSequence", "PixelValueTransformationSequence")


def decode_dicom(content: bytes, colour: bool = False) -> np.ndarray:
    """Bytes of a DICOM file to (height, width) uint8 grey as a viewer shows it first, turned upright.

    Grey: modality LUT or rescale, then the first VOI LUT, else the first window, else the range of the pixels without
    padding, over 0..255 (PS3.3 C.11.1 and C.11.2); MONOCHROME1 inverted. Presentation LUT Shape repeats the latter in
    the image objects and is not applied again. Colour becomes luminance (ITU-R BT.601), or with `colour` stays
    (height, width, 3) uint8 RGB. Patient Orientation says how to turn the film, see orientation.py; pixels that are not
    square are enlarged along their longer side.
    Raises BadImage for anything that is not one whole image of 8 or 16 bits, of at most MAX_SIDE_PX a side;
    MemoryError if there is too little memory.
    """
    dataset = read_dicom(content)
    with damage_is_bad_image("damaged header"):
        _take_frame_values(dataset)
        shape = _check_header(dataset)
        orientation, longer = _find_orientation(dataset), _find_aspect(dataset)
        check_size(*_square_size(shape, longer))
    with damage_is_bad_image("cannot be decoded"):
        pixels = _decode_pixels(dataset, shape)
    if len(shape) == 3:
        return _lay_out(render(pixels, 2**dataset.BitsStored - 1, colour), longer, orientation)
    codes = pixels.view(f"u{pixels.itemsize}")
    with damage_is_bad_image("damaged grey or colour table"):
        # The grey of a pixel depends on its value alone, so it is computed once per value, in the order of the codes.
        stored = np.arange(256**pixels.itemsize, dtype=codes.dtype).view(pixels.dtype)
        if dataset.PhotometricInterpretation in GREY:
            table = to_grey(dataset, stored, codes)
        else:
            table = palette(dataset, stored, colour)
    return _lay_out(table[codes], longer, orientation)


def _lay_out(image: np.ndarray, longer: float, orientation: int) -> np.ndarray:
    """The image with square pixels, upright."""
    size = _square_size(image.shape, longer)
    if size != image.shape[1::-1]:
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return turn(image, orientation)


def _square_size(shape: tuple[int, ...], longer: float) -> tuple[int, int]:
    """Width and height once the pixels are square."""
    return round(shape[1] * max(1, 1 / longer)), round(shape[0] * max(1, longer))


def _find_aspect(dataset: pydicom.Dataset) -> float:
    """Height of a pixel, in widths of it (PS3.3, C.7.6.3.1.7); 1 if the file does not say, or within MAX_OBLONG."""
    for tag in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"):
        sides = [float(side) for side in np.atleast_1d(dataset.get(tag) or [])]
        if len(sides) == 2 and min(sides) > 0:
            return 1 if max(sides) < (1 + MAX_OBLONG) * min(sides) else sides[0] / sides[1]
    return 1


def _find_orientation(dataset: pydicom.Dataset) -> int:
    """1 to 8 as in EXIF. The directions of quadrupeds have other names (PS3.3, C.7.6.1.1.1)."""
    directions = dataset.get("PatientOrientation")
    if isinstance(directions, str) or dataset.get("AnatomicalOrientationType") == "QUADRUPED":
        return UPRIGHT
    return patient_orientation(list(directions or []))


def _take_frame_values(dataset: pydicom.Dataset) -> None:
    """Copies what enhanced objects say of their frame to where others say it (PS3.3, C.7.6.16)."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or [])[:1]:
            for macro in FRAME_MACROS:
                for item in (group.get(macro) or [])[:1]:
                    dataset.update({element.tag: element for element in item if not element.is_empty})


def _check_header(dataset: pydicom.Dataset) -> tuple[int, ...]:
    """The shape of the image: (rows, columns) if it is grey, (rows, columns, 3) if it is in colour."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise BadImage("floating-point pixels, expected whole numbers of 8 or 16 bits")
    if not dataset.get("PixelData"):
        kind = uid.UID(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        name = "unknown object" if kind.name == kind else kind.name
        raise BadImage(f"truncated: no pixels ({name})" if "Rows" in dataset else f"no image: {name}")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise BadImage(
            f"{dataset.NumberOfFrames} frames, expected one: save the one that you want as a file of its own"
        )
    missing = [f"a value of {tag}" if tag in dataset else tag for tag in NEEDED if dataset.get(tag) in (None, "")]
    if missing:
        raise BadImage(f"header lacks {', '.join(missing)}")
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    dataset.PhotometricInterpretation = photometric
    rows, columns, bits, samples = (int(dataset.get(tag)) for tag in NEEDED[:4])
    check_size(columns, rows)
    if bits not in (1, 8, 16):
        raise BadImage(f"pixels of {bits} bits, expected 8 or 16")
    if dataset.get("HighBit") not in (None, "", dataset.BitsStored - 1):
        raise BadImage(f"high bit {dataset.HighBit} of {dataset.BitsStored} stored bits, expected the last")
    if samples != (1 if photometric in (*GREY, "PALETTE COLOR") else 3):
        raise BadImage(f"{photometric} of {samples} samples a pixel")
    return (rows, columns) if samples == 1 else (rows, columns, 3)


def _decode_pixels(dataset: pydicom.Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels of `shape`, uint8, uint16, int8 or int16: bits beyond the stored ones masked, YBR turned into RGB."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") or UNNAMED[dataset.original_encoding]
    dataset.file_meta.TransferSyntaxUID = syntax
    try:
        get_decoder(syntax)
    except NotImplementedError:
        name = "" if syntax.name == syntax else f" ({syntax.name})"
        raise BadImage(
            f"Transfer Syntax UID {syntax}{name} is not read: convert the file to Explicit VR Little Endian, for "
            "example with gdcmconv --raw"
        ) from None
    if not syntax.is_encapsulated:
        # The bits beyond the stored ones are no colours, but YBR is turned into RGB without them.
        is_turned = len(shape) == 3 and dataset.PhotometricInterpretation != "RGB"
        pixels = pixel_array(dataset, correct_unused_bits=is_turned)
        if pixels.shape != shape:
            raise BadImage(f"pixels of more than one image: {pixels.shape}, expected {shape}")
        pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
        return pixels if is_turned else keep_stored_bits(pixels, dataset)
    return decode_stream(dataset, shape)
