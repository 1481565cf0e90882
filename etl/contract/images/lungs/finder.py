"""Finds the lungs of a frontal film by the two classifiers of lungs_finder, which need no training. No torch.

lungs_finder (M. Kholiavchenko, Apache-2.0) brings linear classifiers of histograms of oriented gradients (Dalal and
Triggs 2005), one for each lung. Its own search takes the largest window of each lung by itself, on the whole film.
Here the film is reduced first, and a window counts only beside one of the other lung, as lungs lie: this takes
milliseconds instead of half a second, and the two windows are never on the same lung.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import cv2
import numpy as np

# What the classifiers were trained with: lungs_finder/hog_finder.py.
WINDOW_PX, BLOCK_PX, CELL_PX, NUM_BINS = (32, 64), (16, 16), (8, 8), 9
FILM_PX = 112
"""longer side to which a film is reduced: the windows are 0.29 of it wide"""
SCALES = (1.0, 1.25)
"""by which the reduced film is reduced again, which makes its windows larger; more scales find no more real lungs"""
MIN_SCORE = 0.0
"""smallest sum of the scores of both lungs. It is above for 97% of the real frontal films, and for 1% of those on their
side, 3% of those upside down, and no noise; tests/etl/contract/images/test_lung_finder.py measures it again"""
# Two windows as lungs lie: distances of their centres in widths and heights of a window, and the ratio of their sizes.
APART, LEVEL, MAX_RATIO = (0.9, 1.9), 0.3, 1.34
NEIGHBOUR_IOU = 0.5
SOFTNESS = 0.3
"""score by which a neighbour of the best window may be worse and still count 1/e of it for the place"""


@dataclass(frozen=True)
class Windows:
    """All windows in which a lung is looked for, in films that are reduced to the same size."""

    levels: list[tuple[int, int]]
    """(width, height) of the film at each of SCALES that is large enough"""
    boxes: np.ndarray
    """(windows, 4) float32: left, top, width and height as shares of the film's sides"""
    penalty: np.ndarray
    """(windows, windows) float32: 0 if these can be the windows of a right and a left lung, otherwise -inf"""
    near: np.ndarray
    """(windows, windows) bool: whether the two overlap by NEIGHBOUR_IOU or more"""


def find_lungs(film: np.ndarray) -> tuple[float, float, float, float] | None:
    """The box around both lungs: left, top, width and height as shares of the film's sides, 0..1.

    film: (height, width) uint8 grey, upright; inverted greys make no difference. None if no two windows look like the
    lungs of a chest.
    """
    small = _reduce(film)
    windows = windows_of(small.shape[1], small.shape[0])
    if not windows.levels:
        return None
    weights = _classifiers()
    levels = (cv2.resize(small, size, interpolation=cv2.INTER_LINEAR) for size in windows.levels)
    gradients = np.concatenate([_hog().compute(level, CELL_PX, (0, 0)) for level in levels])
    scores = gradients.reshape(len(windows.boxes), -1) @ weights[:, :-1].T + weights[:, -1]
    pairs = scores[:, :1] + scores[:, 1] + windows.penalty
    right, left = divmod(int(pairs.argmax()), len(scores))
    if pairs[right, left] < MIN_SCORE:
        return None
    places = np.stack([_place(windows, best, scores[:, lung]) for lung, best in enumerate((right, left))])
    start = places[:, :2].min(axis=0).clip(0, 1)
    end = (places[:, :2] + places[:, 2:]).max(axis=0).clip(0, 1)
    return tuple(float(number) for number in (*start, *(end - start)))


@lru_cache(maxsize=64)
def windows_of(width: int, height: int) -> Windows:
    """The windows in a film that is reduced to this size, in pixels."""
    levels, boxes = [], []
    for scale in SCALES:
        size = np.array([round(width / scale), round(height / scale)])
        columns, rows = (size - WINDOW_PX) // CELL_PX + 1
        if columns > 0 and rows > 0:
            y, x = np.mgrid[:rows, :columns].reshape(2, -1) * CELL_PX[0]
            sides = np.broadcast_to(WINDOW_PX, (len(x), 2))
            levels.append(tuple(size.tolist()))
            boxes.append(np.concatenate([np.stack([x, y], axis=1), sides], axis=1) / np.tile(size, 2))
    placed = np.concatenate(boxes).astype(np.float32) if boxes else np.zeros((0, 4), np.float32)
    start, sides = placed[:, :2], placed[:, 2:]
    # The first window of a pair is on the patient's right lung, which is on the film's left.
    away = ((start + sides / 2)[None] - (start + sides / 2)[:, None]) / ((sides[None] + sides[:, None]) / 2)
    ratio = sides[None, :, 1] / sides[:, None, 1]
    beside = (away[..., 0] >= APART[0]) & (away[..., 0] <= APART[1]) & (np.abs(away[..., 1]) <= LEVEL)
    alike = (ratio <= MAX_RATIO) & (ratio >= 1 / MAX_RATIO)
    common = np.minimum((start + sides)[None], (start + sides)[:, None]) - np.maximum(start[None], start[:, None])
    shared, areas = common.clip(0).prod(axis=2), sides.prod(axis=1)
    near = shared >= NEIGHBOUR_IOU * (areas[None] + areas[:, None] - shared)
    return Windows(levels, placed, np.where(beside & alike, 0, -np.inf).astype(np.float32), near)


def _reduce(film: np.ndarray) -> np.ndarray:
    """The film with a longer side of FILM_PX and a shorter one of whole cells."""
    height, width = film.shape
    scale = FILM_PX / max(height, width)
    cell = CELL_PX[0]
    width, height = (max(1, round(side * scale / cell)) * cell for side in (width, height))
    # Halved as often as possible: OpenCV's average over 2x2 pixels is several times as fast as that over any area.
    while film.shape[0] >= 2 * height and film.shape[1] >= 2 * width:
        film = cv2.resize(film, (film.shape[1] // 2, film.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)


def _place(windows: Windows, best: int, scores: np.ndarray) -> np.ndarray:
    """(4,) the mean of the best window's neighbours, weighted by their scores, finer than the steps of the windows."""
    weights = np.exp(np.minimum(scores - scores[best], SOFTNESS) / SOFTNESS) * windows.near[best]
    return weights @ windows.boxes / weights.sum()


@cache
def _hog() -> cv2.HOGDescriptor:
    return cv2.HOGDescriptor(WINDOW_PX, BLOCK_PX, CELL_PX, CELL_PX, NUM_BINS)


@cache
def _classifiers() -> np.ndarray:
    """(2, 757) float32: weights and bias of the classifiers of the right and of the left lung."""
    folder = files("lungs_finder")
    return np.stack([np.loadtxt(str(folder / f"{side}_lung_hog.np"), np.float32) for side in ("right", "left")])
