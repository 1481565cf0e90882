"""Drops the bits of DICOM's pixels that lie beyond the stored ones, unless they belong to the greys."""

import numpy as np
import pydicom

from etl.contract.images.greys import EDGES
from etl.contract.images.pixels import BadImage

# Values by which two neighbours differ are summed up over about so many pixels.
COMPARED_PIXELS = 1_000_000
# Lossy coding exceeds black and white by less than this share of the range.
OVERSHOOT = 1 / 8
# Where films are saturated, as at a border, they exceed white by less than this share of the range: 4,096 of 12 bits.
SATURATED = 1 / 64
# Groups of overlays (PS3.3, C.9.2).
OVERLAYS = range(0x6000, 0x6100, 2)


def keep_stored_bits(words: np.ndarray, dataset: pydicom.Dataset, is_lossy: bool = False) -> np.ndarray:
    """(height, width) or (height, width, 3) uint8, uint16, int8 or int16 without the bits beyond BitsStored.

    is_lossy: whether pixels may exceed black and white by a little; they are clipped.
    Whatever these bits hold, an overlay say, is no part of the grey (PS3.5, section 8.1.1). Raises BadImage if they
    are part of it all the same: BitsStored is too small then, or the sign is wrong, and the greys would wrap around.
    """
    stored = int(dataset.BitsStored)
    spare = int(dataset.BitsAllocated) - stored
    if not 0 < spare < dataset.BitsAllocated:
        return words
    black = -(2 ** (stored - 1)) if words.dtype.kind == "i" else 0
    white = black + 2**stored - 1
    if black <= words.min() and words.max() <= white:
        return words
    kept = words << spare
    kept >>= spare
    clipped = words.clip(black, white) if is_lossy else kept
    words = words & ~_bits_of_overlays(dataset, words.dtype)
    exceeds = np.abs(words - clipped.astype(np.int32)) > (OVERSHOOT * 2**stored if is_lossy else 0)
    # A few pixels, such as hot ones, matter to no film.
    if np.count_nonzero(exceeds) <= EDGES * words.size:
        return clipped
    if max(int(words.max()) - white, black - int(words.min())) <= SATURATED * 2**stored:
        return words.clip(black, white)
    if _are_greys(words, kept, stored):
        raise BadImage(
            f"pixels exceed the {stored} stored bits of the header, with values from {words.min()} to {words.max()}: "
            "correct BitsStored and HighBit, or PixelRepresentation"
        )
    return clipped


def _bits_of_overlays(dataset: pydicom.Dataset, kind: np.dtype) -> np.ndarray:
    """The bits in which the file says that overlays lie, as a number of this type."""
    places = [dataset.get((group, 0x0102)) for group in OVERLAYS]
    places = [int(place.value) for place in places if place is not None and place.value not in (None, "")]
    bits = sum({1 << place for place in places if dataset.BitsStored <= place < dataset.BitsAllocated})
    return np.array(bits, f"u{kind.itemsize}").view(kind)


def _are_greys(words: np.ndarray, kept: np.ndarray, stored: int) -> bool:
    """Whether the bits beyond the stored ones belong to the greys, by the mean difference between neighbours in a row.

    Where greys wrap around, neighbours differ by more than before; where an overlay is dropped, by less. Of a film that
    loses so many bits that it wraps around everywhere, noise is left, whose neighbours differ by a third of the range;
    an overlay has one bit, which makes no noise.
    """
    step = max(1, words.size // COMPARED_PIXELS)
    words, kept = words[::step].astype(np.int32), kept[::step].astype(np.int32)
    before, after = (float(np.abs(np.diff(rows, axis=1)).mean()) if rows.shape[1] > 1 else 0 for rows in (words, kept))
    if before < after:
        return True
    return after > 2**stored / 5 and before < words.std() / 2 and len(np.unique(words >> stored)) > 2
