"""A patient's anatomy, which follow-ups share, and one film's pose: where the outlines of the chest lie.

Positions are fractions of the film's width: the origin is its centre, x grows to the film's right (the patient's left),
y grows downwards. The ranges are set by eye after NIH's films.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from etl.phantoms.canvas import CANVAS_PX, smooth_curve

# x in half thorax widths from the midline, y in lung heights from the apex (0) to the costophrenic angle (1).
LUNG_WALL = np.array([[0.24, 0.38, 0.6, 0.79, 0.91, 0.97, 1.0, 1.0], [0.04, 0.0, 0.05, 0.19, 0.4, 0.62, 0.82, 1.0]]).T
LUNG_MEDIAL = np.array([[0.12, 0.13, 0.13], [0.72, 0.4, 0.15]]).T
# x as a share of the heart's width on that side of the midline, y of its height; clockwise from the right upper border.
HEART_X = np.array([-0.35, -0.8, -1.0, -0.85, -0.2, 0.45, 0.88, 1.0, 0.86, 0.56, 0.36, 0.1])
HEART_Y = np.array([-0.62, -0.35, 0.0, 0.32, 0.42, 0.42, 0.34, 0.12, -0.16, -0.45, -0.66, -0.72])
RIGHT_OF_MIDLINE = 0.34
"""share of the heart's width that lies to the right of the midline"""
AP_MAGNIFICATION = 1.1
"""factor for the heart's width: on an AP film the heart is further from the film, and the tube is nearer"""


@dataclass(frozen=True)
class Anatomy:
    """The anatomy that a patient keeps between follow-ups; lengths are fractions of the film's width."""

    half_width: float
    """half the width of the thorax inside the ribs"""
    lung_height: float
    """from the apex to the costophrenic angle"""
    dome_tops: tuple[float, float]
    """tops of the right and left diaphragm, in lung heights from the apex"""
    cardiothoracic_ratio: float
    """heart width / inner thorax width on a PA film; above 0.5 counts as enlarged (Danzer 1919)"""
    heart_height: float
    heart_tilt: float
    """radians"""
    mediastinum: float
    """half the width of the mediastinum"""
    rib_spacing: float
    rib_width: float
    rib_contrast: float
    """attenuation of the ribs"""
    tissue: float
    """attenuation of the chest wall"""
    wall: float
    """outer half width of the chest, in half thorax widths"""
    shoulder: float
    """height of the shoulders above the lungs"""
    breast: float
    """radius of the breast shadows; 0 if there are none"""
    vessel_contrast: float
    """attenuation of the vessels"""
    vessel_seed: int


def draw_anatomy(rng: Generator, female: bool) -> Anatomy:
    """Draws a normal anatomy at random."""
    half_width = rng.uniform(0.31, 0.385)
    dome = rng.uniform(0.76, 0.88)
    return Anatomy(
        half_width=half_width,
        lung_height=half_width * rng.uniform(1.6, 1.95),
        dome_tops=(dome - rng.uniform(0.0, 0.06), dome + rng.uniform(-0.04, 0.03)),
        cardiothoracic_ratio=rng.uniform(0.38, 0.495),
        heart_height=rng.uniform(0.28, 0.38),
        heart_tilt=rng.uniform(-0.12, 0.22),
        mediastinum=rng.uniform(0.048, 0.075),
        rib_spacing=rng.uniform(0.062, 0.082),
        rib_width=rng.uniform(0.016, 0.026),
        rib_contrast=rng.uniform(0.05, 0.11),
        tissue=rng.uniform(0.6, 0.8),
        wall=rng.uniform(1.13, 1.5),
        shoulder=rng.uniform(-0.02, 0.05),
        breast=rng.uniform(0.1, 0.19) if female else 0.0,
        vessel_contrast=rng.uniform(0.08, 0.15),
        vessel_seed=int(rng.integers(2**31)),
    )


def enlarge_heart(rng: Generator, anatomy: Anatomy) -> Anatomy:
    """The same patient with a cardiothoracic ratio of 0.53 to 0.65."""
    height = anatomy.heart_height * rng.uniform(1.0, 1.15)
    return replace(anatomy, cardiothoracic_ratio=rng.uniform(0.53, 0.65), heart_height=height)


def lung_point(anatomy: Anatomy, side: int, points: np.ndarray) -> np.ndarray:
    """Body positions of (..., 2) lung positions as in LUNG_WALL; side -1 is the patient's right lung, +1 the left."""
    return points * (side * anatomy.half_width, anatomy.lung_height) - (0, 0.56 * anatomy.lung_height)


def lung_outline(anatomy: Anatomy, side: int) -> np.ndarray:
    """(n, 2) body positions around one lung, with a sharp costophrenic angle."""
    top = anatomy.dome_tops[(side + 1) // 2]
    x = np.array([0.88, 0.7, 0.5, 0.3, 0.14])
    dome = np.stack([x, top + (1 - top) * 1.15 * np.abs((x - 0.48) / 0.52) ** 2.2], axis=1)
    base = smooth_curve(np.concatenate([LUNG_WALL[-1:], dome]))
    return lung_point(anatomy, side, np.concatenate([smooth_curve(LUNG_WALL), base, LUNG_MEDIAL]))


def heart_outline(anatomy: Anatomy, ap: bool) -> np.ndarray:
    """(n, 2) body positions around the heart."""
    width = 2 * anatomy.half_width * anatomy.cardiothoracic_ratio * (AP_MAGNIFICATION if ap else 1.0)
    x = HEART_X * width * np.where(HEART_X < 0, RIGHT_OF_MIDLINE, 1 - RIGHT_OF_MIDLINE)
    cos, sin = np.cos(anatomy.heart_tilt), np.sin(anatomy.heart_tilt)
    tilted = np.stack([x, HEART_Y * anatomy.heart_height], axis=1) @ np.array([(cos, sin), (-sin, cos)])
    diaphragm = lung_point(anatomy, 1, np.array((0.0, max(anatomy.dome_tops))))
    return smooth_curve(tilted, closed=True) + diaphragm - (0, 0.36 * anatomy.heart_height)


@dataclass(frozen=True)
class Pose:
    """Maps body positions to canvas pixels."""

    matrix: np.ndarray
    """(2, 2): rotation and scale"""
    centre: np.ndarray
    """(2,) canvas pixels"""

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Canvas pixels of (..., 2) body positions."""
        return points @ self.matrix.T + self.centre


def draw_pose(rng: Generator) -> Pose:
    """Draws a film's shift (s.d. 3.5% of the width), rotation (s.d. 2.5 degrees) and scale (0.92 to 1.16)."""
    angle, scale = rng.normal(0, np.radians(2.5)), rng.uniform(0.92, 1.16)
    rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    shift = np.clip(rng.normal(0, 0.035, 2), -0.08, 0.08)
    return Pose(rotation * scale * CANVAS_PX, (0.5 + shift) * CANVAS_PX)
