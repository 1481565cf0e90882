"""Stored greys to greys of 8 bits, over the range that the file uses."""

import numpy as np

from etl.contract.images.pixels import BadImage, Stored

# A film whose brightest pixel is below this share of white leaves two bits of its range unused. The brightest pixels of
# 1,047 real films lie at 0.6 of white and above (tests/etl/contract/test_greys.py).
MIN_BRIGHTEST = 1 / 4
# Detectors have 10, 12 or 14 bits; 8 bits are widened by programs.
USUAL_BITS = (8, 10, 12, 14)


def white_of(stored: Stored, grey_bits: int = 0) -> int:
    """The stored value that is white: the largest of the bits that the file calls significant, or of the pixels' type.

    Pixels that exceed the significant bits were scaled up to the type (PNG 3, section 11.3.2.4).
    grey_bits: etl.grey_bits, for pixels of 16 bits whose file leaves open how many of them are used; with 16, all are.
    Raises BadImage for pixels of 16 bits that use so few of them that the film would be dark.
    """
    has_8_bits = stored.pixels.dtype == np.uint8
    if has_8_bits and not stored.white:
        return 255
    image = stored.pixels if stored.pixels.ndim == 2 else stored.pixels[..., :3]
    full = 255 if has_8_bits else 65535
    brightest = int(image.max())
    said = 0 if has_8_bits else 2**grey_bits - 1
    ranges = [white for white in (stored.white, said, full) if 0 < white >= brightest]
    if has_8_bits or grey_bits == 16 or image.min() == brightest:
        return ranges[0]
    for white in ranges:
        if brightest >= white * MIN_BRIGHTEST:
            return white
    white, bits = min(ranges), next(bits for bits in USUAL_BITS if brightest < 2**bits)
    raise BadImage(
        f"few bits: the brightest grey is {brightest} of {white}, as if {bits} bits were stored in "
        f"{white.bit_length()}: save the film over its full range, or set --etl.grey_bits {bits} if all films of the "
        f"table have {bits} bits"
    )


def to_8_bits(greys: np.ndarray, white: int) -> np.ndarray:
    """uint8 or uint16 of any shape, scaled from 0..white to 0..255 and rounded, uint8."""
    if white == 255:
        return greys.astype(np.uint8, copy=False)
    return ((greys.astype(np.uint32) * 510 + white) // (2 * white)).astype(np.uint8)
