"""Turns the stored values of a DICOM image into greys of 0..255: modality and VOI tables, windows, palettes."""

import cv2
import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_windowing

from etl.contract.images.pixels import BadImage


def to_grey(dataset: pydicom.Dataset, stored: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The grey of each stored value, (256 or 65536,) uint8. codes: the pixels, as indices of `stored`."""
    values = stored.astype(np.float64)
    if dataset.get("ModalityLUTSequence"):
        values, _ = _look_up(dataset.ModalityLUTSequence[0], values)
    elif None not in (dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")):
        values = values * dataset.RescaleSlope + dataset.RescaleIntercept
    if dataset.get("VOILUTSequence"):
        values, high = _look_up(dataset.VOILUTSequence[0], values)
        low = 0
    elif None not in (dataset.get("WindowCenter"), dataset.get("WindowWidth")):
        values = apply_windowing(values, _eight_bit_window(dataset))
        low, high = 0, 255
    else:
        present = np.zeros(len(stored), bool)
        present[codes] = True
        present &= ~_is_padding(dataset, stored)
        if not present.any():
            raise BadImage("nothing but padding")
        low, high = values[present].min(), values[present].max()
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values, low, high = -values, -high, -low
    greys = (values - low) * 255 / ((high - low) or 1)
    if not np.isfinite(greys).all():
        raise BadImage("grey values are not finite: damaged window or rescale")
    return np.rint(greys.clip(0, 255)).astype(np.uint8)


def _look_up(item: pydicom.Dataset, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Entries of a lookup table (PS3.3 C.11.1.1) and the largest that it may have.

    pydicom's own look-up wraps inputs above 255 around if the entries have 8 bits.
    """
    num_entries, first, bits = item.LUTDescriptor
    entries = item.LUTData
    if isinstance(entries, bytes):
        order = "<" if item.original_encoding[1] else ">"
        entries = np.frombuffer(entries, f"{order}u2" if len(entries) >= 2 * (num_entries or 65536) else "u1")
    entries = np.asarray(entries, np.float64)[: num_entries or 65536]
    return entries[(np.rint(values) - first).clip(0, len(entries) - 1).astype(np.intp)], 2**bits - 1


def _eight_bit_window(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The first window, for pixels whose full range is 0..255, because pydicom's output has the range of the pixels."""
    window = pydicom.Dataset()
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    for tag in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if dataset.get(tag) is not None:
            window[tag] = dataset[tag]
    return window


def _is_padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return np.zeros(len(stored), bool)
    # Some writers store -2000 as 63536; the cast wraps it back.
    ends = np.array([padding, dataset.get("PixelPaddingRangeLimit", padding)], np.int64).astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def palette(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """(256 or 65536,) uint8: luminance of each stored value's colour."""
    num_colours, first, bits = dataset.RedPaletteColorLookupTableDescriptor
    # pydicom would wrap values beyond the last colour around.
    known = stored.astype(np.int32).clip(first, first + (num_colours or 65536) - 1)
    return to_luminance(apply_color_lut(known, dataset)[None, :, :3], bits)[0]


def to_luminance(rgb: np.ndarray, bits: int) -> np.ndarray:
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    return np.rint((grey * (255 / (2**bits - 1))).clip(0, 255)).astype(np.uint8)
