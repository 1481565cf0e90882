"""Whether a table of greys shows a DICOM film, or leaves it black, white or dark."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from etl.contract.images.greys import MIN_BRIGHTEST
from etl.contract.images.pixels import BadImage

# A film whose values span so many greys over their own bits is not to be shown with fewer.
MIN_GREYS = 16
# The largest grey that is too dark for the brightest of a film; rounded, as greys are: 14 of 16 bits reach it.
DARK = round(255 * MIN_BRIGHTEST)
# Share of a film's pixels that may be a marker, a label or hot, and thus white, however dark the film is. The
# other pixels of 1,047 real films reach 0.58 of white and more.
MARKERS = 0.005
# Every eighth row and column is looked at first, unless that leaves too few pixels to find the markers' share.
SPARSE, MANY_PIXELS = 8, 1_000_000


@dataclass(frozen=True)
class Film:
    """The pixels of a film, and what they mean."""

    codes: np.ndarray
    """(height, width): the pixels, as indices of the next two"""
    stored: np.ndarray
    """(256 or 65536,): the stored values"""
    is_film: np.ndarray
    """(256 or 65536,) bool: which of them are no padding"""
    is_inverted: bool
    """whether the smallest value is white"""

    @cached_property
    def counts(self) -> np.ndarray:
        """(256 or 65536,) float32: the number of pixels of each value, 0 for padding."""
        return self._count(self.codes)

    def is_shown_by(self, greys: np.ndarray) -> bool:
        """Whether the film has greys between black and white, many enough, and not only the darkest, from black on.

        greys: (256 or 65536,) uint8, the grey of each stored value. Many enough: MIN_GREYS, unless the film's values
        span fewer over their own bits. A film that ends below MIN_BRIGHTEST is one of 12 bits, say, under a window for
        14; markers do not count.
        """
        if self.codes.size >= MANY_PIXELS and self._shows(greys, self._count(self.codes[::SPARSE, ::SPARSE])):
            return True
        return self._shows(greys, self.counts)

    def refuse_few_bits(self, greys: np.ndarray) -> None:
        """Raises BadImage if these greys, scaled by the range of the pixels, leave all but the markers dark."""
        values = self.stored[self.counts > 0]
        for _, brightest, part in self._ends(greys, self.counts):
            if brightest <= DARK and not _is_flat(part):
                raise BadImage(
                    f"few bits: all but {MARKERS:.1%} of the pixels are from {part.min()} to {part.max()}, in a range "
                    f"from {values.min()} to {values.max()}, which would show them with few greys: give the file a "
                    "window for them (WindowCenter, WindowWidth)"
                )

    def _shows(self, greys: np.ndarray, counts: np.ndarray) -> bool:
        shown = greys[counts > 0]
        if not ((shown > 0) & (shown < 255)).any():
            return False
        return all(
            (brightest - darkest >= MIN_GREYS or _is_flat(part)) and (brightest > DARK or darkest > brightest / 2)
            for darkest, brightest, part in self._ends(greys, counts)
        )

    def _ends(self, greys: np.ndarray, counts: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """The darkest grey, the brightest without markers, and the stored values between them.

        They come once as they are shown, and once from the other end if small values are bright: such a film is under
        a window that is too wide if it is all bright.
        """
        present = counts > 0
        shown, values, counts = greys[present].astype(int), self.stored[present].astype(int), counts[present]
        for ends in (shown, 255 - shown):
            num_pixels = np.bincount(ends, counts).cumsum()
            brightest = int(np.searchsorted(num_pixels, (1 - MARKERS) * num_pixels[-1]))
            # No detector has fewer than 8 bits, so these are used.
            if len(self.stored) == 256 or np.count_nonzero(ends <= brightest) < MIN_GREYS:
                brightest = int(ends.max())
            yield int(ends.min()), brightest, values[ends <= brightest]
            if not self.is_inverted and shown[values.argmin()] <= shown[values.argmax()]:
                return

    def _count(self, codes: np.ndarray) -> np.ndarray:
        size = len(self.stored)
        return cv2.calcHist([np.ascontiguousarray(codes)], [0], None, [size], [0, size]).ravel() * self.is_film


def _is_flat(values: np.ndarray) -> bool:
    """Whether the values span fewer than MIN_GREYS over their own bits."""
    own_white = max(1, 2 ** int(np.abs(values).max()).bit_length() - 1)
    return bool(np.ptp(values) * 255 < MIN_GREYS * own_white)
