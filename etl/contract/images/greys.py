"""Stored greys to greys of 8 bits, over the range that the file uses."""

import math

import cv2
import numpy as np

from etl.contract.images.pixels import BadImage, Stored

# A film that stays below this share of white leaves two bits of its range unused. 99.5% of the pixels of a film end at
# 0.58 of white and above in 1,047 real films, and 90% at 0.56 (tests/etl/contract/images/test_greys.py).
MIN_BRIGHTEST = 1 / 4
# A marker is brighter than its film. It is painted in one grey; its edges are no more of the other pixels than this.
EDGES = 0.005
# Black of a film lies below this share of white: 99.5% of the pixels of each of those 1,047 films begin below 0.34.
MAX_DARKEST = 1 / 2
# So many rows are looked at first.
SAMPLED_ROWS = 256
# Detectors have 10, 12 or 14 bits; 8 bits are widened by programs.
USUAL_BITS = (8, 10, 12, 14)


def greys_of(stored: Stored, grey_bits: int = 0) -> tuple[np.ndarray, int]:
    """The pixels without alpha, 0 being black, and the value that is white: (height, width) or (height, width, 3).

    White is the largest value of the bits that the file calls significant, or of the pixels' type. Pixels that exceed
    the significant bits were scaled up to the type (PNG 3, section 11.3.2.4).
    grey_bits: etl.grey_bits, for pixels of 16 bits whose file leaves open how many of them are used; with 16, all are.
    Raises BadImage for pixels of 16 bits that use so few of them that the film would be dark, or of little contrast.
    """
    pixels = stored.pixels
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
    if pixels.dtype == np.uint8:
        return pixels, stored.white if 0 < stored.white >= pixels.max() else 255
    white = _white_of(pixels, [stored.white, 2**grey_bits - 1, stored.full], grey_bits == 16)
    if stored.white_is_zero:
        pixels = white - pixels
        # Some programs store 65535 - v, where v has fewer bits.
        white = _white_of(pixels, [stored.white, 2**grey_bits - 1, white], grey_bits == 16)
    if white == 65535 and grey_bits != 16:
        _refuse_offset(pixels.reshape(len(pixels), -1), white)
    return pixels, white


def to_8_bits(greys: np.ndarray, white: int) -> np.ndarray:
    """uint8 or uint16 of any shape, scaled from 0..white to 0..255 and rounded, uint8."""
    if white == 255:
        return greys.astype(np.uint8, copy=False)
    return ((greys.astype(np.uint32) * 510 + white) // (2 * white)).astype(np.uint8)


def _white_of(pixels: np.ndarray, ranges: list[int], is_sure: bool) -> int:
    """The first of the ranges that the uint16 pixels fit and use; the first that they fit if `is_sure`, or one grey."""
    values = pixels.reshape(len(pixels), -1)
    brightest = int(values.max())
    fitting = [white for white in ranges if 0 < white >= brightest]
    if is_sure:
        return fitting[0]
    for white in fitting:
        if _is_used(values, brightest, white):
            return white
    if values.min() == brightest:
        return fitting[0]
    white = min(fitting)
    if has_marker := brightest >= white * MIN_BRIGHTEST:
        film = values[values < white * MIN_BRIGHTEST]
        # Nothing but a marker is no film to judge.
        if film.min() == film.max():
            return fitting[0]
        brightest = int(np.percentile(film, 100 * (1 - EDGES), method="higher"))
    bits = next(bits for bits in USUAL_BITS if brightest < 2**bits)
    raise BadImage(
        f"few bits: {'but for markers, ' * has_marker}the brightest grey is {brightest} of {white}, as if {bits} bits "
        f"were stored in {white.bit_length()}: save the film over its full range, "
        + (
            "its markers no brighter than it, or set --etl.grey_bits 16 to keep the greys as they are"
            if has_marker
            else f"or set --etl.grey_bits {bits} if all films of the table have {bits} bits, or 16 to keep their greys"
        )
    )


def _is_used(values: np.ndarray, brightest: int, white: int) -> bool:
    """Whether pixels reach MIN_BRIGHTEST of white, those of a marker aside.

    Pixels of two greys are no film with a marker.
    """
    least = math.ceil(white * MIN_BRIGHTEST)
    if brightest < least:
        return False
    num_bright = cv2.countNonZero(cv2.inRange(values, least, brightest - 1))
    if num_bright > EDGES * values.size:
        return True
    others = values[values < brightest]
    return num_bright > EDGES * others.size or others.size == 0 or others.min() == others.max()


def _refuse_offset(values: np.ndarray, white: int) -> None:
    """Raises BadImage if black is far from 0, as in signed pixels to which 32768 was added."""
    for rows in (values[:: max(1, len(values) // SAMPLED_ROWS)], values):
        darkest, brightest = (
            int(grey) for grey in np.percentile(rows, [100 * EDGES, 100 * (1 - EDGES)], method="nearest")
        )
        is_narrow = brightest - darkest < white * MIN_BRIGHTEST or darkest > white * MAX_DARKEST
        # A film of one grey has no contrast to lose.
        if not is_narrow or darkest == brightest:
            return
    raise BadImage(
        f"few bits: but for 1% of the pixels, the greys are from {darkest} to {brightest} of {white}, as if an offset "
        "were added to them: save the film with black at 0 and over its full range, or set --etl.grey_bits 16 to keep "
        "the greys as they are"
    )
