"""Turns the stored values of a DICOM image into greys of 0..255: modality and VOI tables, windows, palettes."""

from collections.abc import Iterator

import cv2
import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_windowing

from etl.contract.images.dicom.film import Film
from etl.contract.images.greys import MIN_BRIGHTEST
from etl.contract.images.pixels import BadImage

# Ways of a window to map its values (PS3.3 C.11.2.1.3).
VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def to_grey(dataset: pydicom.Dataset, stored: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The grey of each stored value, (256 or 65536,) uint8. codes: the pixels, as indices of `stored`.

    The first VOI LUT or window counts that shows the film; if none does, the range of the pixels without padding.
    Raises BadImage if that is so wide that it leaves the film dark, for the sake of a few pixels; for a damaged
    modality LUT; and for a damaged VOI LUT, unless another LUT or window shows the film.
    """
    values, is_signed = _modality_values(dataset, stored)
    is_inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    film = Film(codes, stored, ~_is_padding(dataset, stored), is_inverted)
    damaged: list[BadImage] = []
    for shades, black, white in _voi(dataset, values, is_signed, damaged):
        greys = _scale(shades, black, white, is_inverted)
        if greys is not None and film.is_shown_by(greys):
            return greys
    if damaged:
        raise BadImage(f"{damaged[0]}; no other VOI LUT or window shows the film")
    present = film.counts > 0
    if not present.any():
        raise BadImage("nothing but padding")
    greys = _scale(values, values[present].min(), values[present].max(), is_inverted)
    if greys is None:
        raise BadImage("grey values are not finite: damaged rescale")
    film.refuse_few_bits(greys)
    return greys


def _modality_values(dataset: pydicom.Dataset, stored: np.ndarray) -> tuple[np.ndarray, bool]:
    """The values after modality LUT or rescale, float64, and whether they may be negative (PS3.3 C.11.1)."""
    values, is_signed = stored.astype(np.float64), stored.dtype.kind == "i"
    for item in filter(_has_entries, dataset.get("ModalityLUTSequence") or []):
        # The entries are unsigned.
        return _look_up(item, values, is_signed)[0], False
    slope, intercept = (_rescale(dataset, tag) for tag in ("RescaleSlope", "RescaleIntercept"))
    # With a slope of 0 every film would be of one grey.
    if None not in (slope, intercept) and slope != 0:
        values = values * slope + intercept
        is_signed = bool(values.min() < 0)
    return values, is_signed


def _rescale(dataset: pydicom.Dataset, tag: str) -> float | None:
    value = dataset.get(tag)
    if value in (None, ""):
        return None
    if np.isnan(_number(value)):
        raise BadImage(f"{tag} {str(value)[:20]!r}, expected a number")
    return float(value)


def _voi(
    dataset: pydicom.Dataset, values: np.ndarray, is_signed: bool, damaged: list[BadImage]
) -> Iterator[tuple[np.ndarray, float, float]]:
    """What each VOI LUT, then each window makes of the values, and which of that is black and white (PS3.3 C.11.2).

    Items without entries, and windows without width, are left out; so are damaged LUTs, whose reasons join `damaged`.
    """
    for item in filter(_has_entries, dataset.get("VOILUTSequence") or []):
        try:
            entries, white = _look_up(item, values, is_signed)
        except BadImage as reason:
            damaged.append(reason)
            continue
        yield entries, 0, white
    centers, widths = (dataset.get(tag) for tag in ("WindowCenter", "WindowWidth"))
    if None in (centers, widths):
        return
    for center, width in zip(np.atleast_1d(centers), np.atleast_1d(widths), strict=False):
        center, width = _number(center), _number(width)
        if np.isfinite(center) and width > 0:
            yield apply_windowing(values, _eight_bit_window(dataset, center, width)), 0, 255


def _number(value: object) -> float:
    """NaN for text that is no number, such as `2048,0`."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def _scale(shades: np.ndarray, black: float, white: float, is_inverted: bool) -> np.ndarray | None:
    """uint8 greys of 0..255 from black to white; None if they are not finite."""
    if is_inverted:
        shades, black, white = -shades, -white, -black
    greys = (shades - black) * 255 / ((white - black) or 1)
    return np.rint(greys.clip(0, 255)).astype(np.uint8) if np.isfinite(greys).all() else None


def _has_entries(item: pydicom.Dataset) -> bool:
    return item.get("LUTDescriptor") is not None and item.get("LUTData") not in (None, b"")


def _look_up(item: pydicom.Dataset, values: np.ndarray, is_signed: bool) -> tuple[np.ndarray, int]:
    """Entries of a lookup table (PS3.3 C.11.1.1), and the one that is white.

    is_signed: whether the values may be negative, and with them the first value of the table, whatever its VR.
    pydicom's own look-up wraps inputs above 255 around if the entries have 8 bits.
    """
    num_entries, first, bits = _descriptor(item.LUTDescriptor)
    entries = item.LUTData
    if isinstance(entries, bytes):
        words = np.frombuffer(entries[: len(entries) // 2 * 2], f"{'<>'[not item.original_encoding[1]]}u2")
        # Entries of 8 bits lie in pairs in words of the file's byte order, or in a word each.
        is_packed = bits <= 8 and len(entries) in (num_entries, num_entries + 1)
        entries = words.astype("<u2").view("u1") if is_packed else words
    entries = np.atleast_1d(np.asarray(entries, np.float64))[:num_entries]
    # Some writers leave out the last entry.
    if len(entries) < max(1, num_entries - 1):
        raise BadImage(f"LUT of {num_entries} entries has {len(entries)}: damaged, expected all that it declares")
    places = (np.rint(values) - _first(first, is_signed)).clip(0, len(entries) - 1)
    return entries[places.astype(np.intp)], _white_entry(int(entries.max()), bits)


def _descriptor(descriptor: list[int]) -> tuple[int, int, int]:
    """Number of entries, value of the first, and bits (PS3.3 C.11.1.1.1)."""
    if len(np.atleast_1d(descriptor)) != 3:
        raise BadImage(f"LUT descriptor {descriptor}, expected number of entries, first value and bits")
    num_entries, first, bits = descriptor
    return num_entries % 65536 or 65536, first, bits


def _first(first: int, is_signed: bool) -> int:
    """The value of the first entry of a table. Some writers store a negative one as unsigned."""
    return first - 65536 if is_signed and first >= 32768 else first


def _white_entry(largest: int, bits: int) -> int:
    """The largest of the descriptor's bits; of the entries' own bits if these are more, or fewer by two."""
    white = 2**bits - 1 if 0 < bits <= 16 else 0
    return white if white >= largest >= white * MIN_BRIGHTEST else 2 ** largest.bit_length() - 1


def _eight_bit_window(dataset: pydicom.Dataset, center: float, width: float) -> pydicom.Dataset:
    """A window for pixels whose full range is 0..255, because pydicom's output has the range of the pixels."""
    window = pydicom.Dataset()
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    window.WindowCenter, window.WindowWidth = center, width
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in VOI_FUNCTIONS:
        raise BadImage(f"VOI LUT Function {function!r}, expected LINEAR, LINEAR_EXACT or SIGMOID")
    # LINEAR is for values of whole numbers; below a width of 1 it has no meaning.
    window.VOILUTFunction = "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function
    return window


def _is_padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return np.zeros(len(stored), bool)
    # Some writers store -2000 as 63536; the cast wraps it back.
    ends = np.array([padding, dataset.get("PixelPaddingRangeLimit", padding)], np.int64).astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def palette(dataset: pydicom.Dataset, stored: np.ndarray, colour: bool) -> np.ndarray:
    """(256 or 65536, 3) uint8 RGB of each stored value, or (256 or 65536,) luminance."""
    num_colours, first, bits = _descriptor(dataset.RedPaletteColorLookupTableDescriptor)
    start = _first(first, stored.dtype.kind == "i")
    # pydicom would wrap values beyond the last colour around.
    places = (stored.astype(np.int32) - start).clip(0, num_colours - 1)
    table = apply_color_lut(places + first, dataset)[None, :, :3]
    # Colours of 8 bits may all be dark.
    return render(table, max(255, _white_entry(int(table.max()), bits)), colour)[0]


def render(rgb: np.ndarray, white: int, colour: bool) -> np.ndarray:
    """(h, w, 3) RGB of 0 to `white` to uint8: as it is, or its luminance, (h, w) (ITU-R BT.601)."""
    image = np.ascontiguousarray(rgb) if colour else cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    return np.rint((image * (255 / (white or 1))).clip(0, 255)).astype(np.uint8)
