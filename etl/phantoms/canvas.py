"""Soft shapes, lines and noise on a square canvas, which films are drawn with.

A film of any size is drawn at CANVAS_PX, as a sum of float32 masks of 0..1, and resized at the end. A chest is smooth
at that scale, and grain is added to the resized film.
"""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator

CANVAS_PX = 512
SUBPIXEL_BITS = 4
"""fractional bits of the fixed-point positions that OpenCV takes"""


def smooth_curve(points: np.ndarray, closed: bool = False, steps: int = 8) -> np.ndarray:
    """Catmull-Rom spline through (n, 2) points, `steps` per segment -> (segments * steps, 2)."""
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, start, end, after = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    linear, square, cube = end - before, 2 * before - 5 * start + 4 * end - after, 3 * (start - end) + after - before
    return (start + 0.5 * t * (linear + t * (square + t * cube))).reshape(-1, 2)


def blank() -> np.ndarray:
    """An empty (CANVAS_PX, CANVAS_PX) uint8 mask."""
    return np.zeros((CANVAS_PX, CANVAS_PX), np.uint8)


def fixed_point(shapes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Positions in OpenCV's fixed-point format; all shapes have the same number of points."""
    return list(np.int32(np.asarray(shapes) * 2**SUBPIXEL_BITS))


def fill(mask: np.ndarray, polygons: Sequence[np.ndarray], value: int) -> None:
    """Draws filled polygons, each (n, 2) canvas pixels, into a uint8 mask."""
    # One by one: OpenCV leaves areas empty that an even number of polygons of one call cover.
    for polygon in fixed_point(polygons):
        cv2.fillPoly(mask, [polygon], value, cv2.LINE_AA, SUBPIXEL_BITS)


def stroke(mask: np.ndarray, lines: Sequence[np.ndarray], thickness_px: int, value: int, closed: bool = False) -> None:
    """Draws polylines, each (n, 2) canvas pixels, into a uint8 mask."""
    cv2.polylines(mask, fixed_point(lines), closed, value, thickness_px, cv2.LINE_AA, SUBPIXEL_BITS)


def soften(mask: np.ndarray, blur_px: float) -> np.ndarray:
    """uint8 mask -> float32 of 0..1, blurred with a Gaussian of s.d. `blur_px`.

    A wide blur runs on a coarser canvas, for speed.
    """
    coarse = 8 if blur_px > 10 else 2 if blur_px > 1.4 else 1
    if coarse > 1:
        mask = cv2.resize(mask, (CANVAS_PX // coarse, CANVAS_PX // coarse), interpolation=cv2.INTER_AREA)
    taps = 2 * round(2 * blur_px / coarse) + 1
    mask = cv2.GaussianBlur(mask, (taps, taps), blur_px / coarse)
    soft = mask.astype(np.float32) * np.float32(1 / 255)
    return soft if coarse == 1 else cv2.resize(soft, (CANVAS_PX, CANVAS_PX), interpolation=cv2.INTER_LINEAR)


def paint(polygons: Sequence[np.ndarray], blur_px: float) -> np.ndarray:
    """Filled polygons, each (n, 2) canvas pixels, with soft edges -> float32 of 0..1."""
    mask = blank()
    fill(mask, polygons, 255)
    return soften(mask, blur_px)


@lru_cache(maxsize=16)
def noise_tile(wavelength_px: int, side_px: int) -> np.ndarray:
    """Smooth noise of unit variance, (side_px, side_px) float32, the same in every process; films use crops of it."""
    coarse = max(4, 2 * side_px // wavelength_px)
    noise = np.random.default_rng([wavelength_px, side_px]).standard_normal((coarse, coarse), dtype=np.float32)
    tile = cv2.resize(noise, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return (tile - tile.mean()) / tile.std()


def crop_noise(rng: Generator, wavelength_px: int, side_px: int = CANVAS_PX) -> np.ndarray:
    """A random (side_px, side_px) crop of the noise of this wavelength, as a view."""
    top, left = rng.integers(side_px // 2, size=2)
    return noise_tile(wavelength_px, side_px * 3 // 2)[top : top + side_px, left : left + side_px]
