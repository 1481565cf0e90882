"""The shadows that a chest without findings casts on one film, as attenuations that add up."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from etl.phantoms.anatomy import LUNG_WALL, Anatomy, Pose, heart_outline, lung_outline, lung_point
from etl.phantoms.canvas import blank, crop_noise, fill, paint, smooth_curve, soften, stroke

LUNG_DEPTH = 0.44
"""attenuation that the air in the lungs removes; the unit of a lesion's strength"""


@dataclass(frozen=True)
class Chest:
    """The shadows of one film, all (CANVAS_PX, CANVAS_PX) float32."""

    anatomy: Anatomy
    pose: Pose
    outlines: tuple[np.ndarray, np.ndarray]
    """outlines of the right and left lung, each (n, 2) canvas pixels"""
    lungs: tuple[np.ndarray, np.ndarray]
    """masks of the right and left lung, 0..1, including what heart and mediastinum cover"""
    heart: np.ndarray
    """mask of the heart, 0..1"""
    air: np.ndarray
    """mask of the lungs without heart and mediastinum, 0..1"""
    vessels: np.ndarray
    """attenuation of vessels and lung texture, which a pneumothorax or an effusion removes"""
    rest: np.ndarray
    """attenuation of everything else"""

    def place(self, side: int, x: float, y: float) -> np.ndarray:
        """(2,) canvas pixels of a lung position; side -1 is the patient's right lung, +1 the left."""
        return self.pose.pixels(lung_point(self.anatomy, side, np.array((x, y))))


def draw_chest(anatomy: Anatomy, pose: Pose, ap: bool, rng: Generator) -> Chest:
    """Draws all shadows of one film. rng: the film's own, for everything that changes between follow-ups."""
    outlines = tuple(pose.pixels(lung_outline(anatomy, side)) for side in (-1, 1))
    lungs = tuple(paint([outline], 1.6) for outline in outlines)
    heart = paint([pose.pixels(heart_outline(anatomy, ap))], 2.5)
    # From the neck down the right side and up the left, where the aortic knob stands out.
    x = anatomy.mediastinum * np.array([-1, -1, -1.15, -1, 1, 1, 1.5, 1.45, 1, 1])
    y = np.array([-0.7, -0.25, -0.1, 0.7, 0.7, 0.0, -0.14, -0.2, -0.26, -0.7])
    mediastinum = paint([pose.pixels(smooth_curve(np.stack([x, y], axis=1), closed=True))], 3)
    air = (lungs[0] + lungs[1]) * (1 - 0.9 * np.maximum(heart, mediastinum))
    texture = LUNG_DEPTH * (0.035 * crop_noise(rng, 7) + 0.02 * crop_noise(rng, 16))
    vessels = air * (anatomy.vessel_contrast * draw_vessels(anatomy, pose) + texture)
    rest = draw_wall(anatomy, pose, rng) - LUNG_DEPTH * air
    rest += 0.14 * cv2.blur(mediastinum, (17, 17)) + 0.05 * heart
    rest += anatomy.rib_contrast * draw_ribs(anatomy, pose) * (0.35 + 0.65 * air)
    rest += draw_other_bones(anatomy, pose, rng)
    return Chest(anatomy, pose, outlines, lungs, heart, air, vessels, rest)


def draw_ribs(anatomy: Anatomy, pose: Pose) -> np.ndarray:
    """Ten pairs of ribs, their posterior and fainter anterior parts, with dense margins: 0..1.3."""
    posterior, anterior = blank(), blank()
    t = np.linspace(0.0, 1.0, 12)
    half = np.array((0, anatomy.rib_width / 2))
    top = lung_point(anatomy, 1, np.zeros(2))[1]
    for index in range(10):
        start = top + 0.01 + index * anatomy.rib_spacing
        depth = (start - top) / anatomy.lung_height + 0.12
        reach = 1.03 * anatomy.half_width * np.interp(depth, LUNG_WALL[1:, 1], LUNG_WALL[1:, 0])
        arch = start - 0.025 * np.sin(t * np.pi) + (0.03 + 0.007 * index) * t**2
        back = np.stack([0.04 + (reach - 0.04) * np.sin(t * np.pi / 2), arch], axis=1)
        front = np.stack([reach * (1 - 0.62 * t**1.3), arch[-1] + 0.005 + 0.13 * t**0.8], axis=1)
        for mask, middle, density, margin in ((posterior, back, 110, 200), (anterior, front, 60, 100)):
            margins = np.stack([middle - half, middle + half])
            upper, lower = pose.pixels(np.stack([margins, margins * (-1, 1)], axis=1))
            fill(mask, np.concatenate([upper, lower[:, ::-1]], axis=1), density)
            stroke(mask, [*upper, *lower], 1, margin)
    return soften(posterior, 1.2) + soften(anterior, 1.2)


def draw_vessels(anatomy: Anatomy, pose: Pose) -> np.ndarray:
    """Vessels that branch from the hila, wind and thin out: 0..1."""
    rng = np.random.default_rng(anatomy.vessel_seed)
    mask = blank()
    num_stems, num_twigs = 11, 34
    for side in (-1, 1):
        hila = lung_point(anatomy, side, np.array((0.22, 0.45))) + rng.normal(0, 0.012, (num_stems, 2))
        headings = rng.uniform(-1.4, 1.4, num_stems)
        stems = wander(rng, hila, headings, 15, side)
        stem, fork = rng.integers(num_stems, size=num_twigs), rng.integers(2, 11, size=num_twigs)
        turns = rng.choice((-1, 1), num_twigs) * rng.uniform(0.4, 0.9, num_twigs)
        twigs = wander(rng, stems[stem, fork], headings[stem] + turns, 9, side)
        stroke(mask, pose.pixels(twigs), 1, 130)
        stroke(mask, pose.pixels(stems), 1, 170)
        stroke(mask, pose.pixels(stems[:, :9]), 3, 190)
        stroke(mask, pose.pixels(stems[:, :4]), 6, 220)
    return soften(mask, 0.9)


def wander(rng: Generator, starts: np.ndarray, headings: np.ndarray, steps: int, side: int) -> np.ndarray:
    """Winding paths from (n, 2) body positions; headings (n,) radians below lateral -> (n, steps, 2)."""
    turns = headings[:, None] + np.cumsum(rng.normal(0, 0.13, (len(starts), steps)), axis=1)
    moves = 0.019 * np.stack([side * np.cos(turns), np.sin(turns)], axis=-1)
    return starts[:, None] + np.cumsum(moves, axis=1)


def draw_wall(anatomy: Anatomy, pose: Pose, rng: Generator) -> np.ndarray:
    """Attenuation of neck, shoulders, chest wall, arms, breasts and abdomen."""
    wall, neck = anatomy.half_width * anatomy.wall, rng.uniform(0.1, 0.13)
    shoulder = lung_point(anatomy, 1, np.zeros(2))[1] - anatomy.shoulder
    x = np.array([neck, neck, neck + 0.04, 0.3, 0.43, wall + 0.03, wall, wall + 0.02, wall + 0.04])
    y = np.array([-0.9, shoulder - 0.11, shoulder - 0.04, shoulder, shoulder + 0.08, shoulder + 0.2, 0.05, 0.4, 0.9])
    half = np.stack([x, y], axis=1)
    torso = paint([pose.pixels(smooth_curve(np.concatenate([half, half[::-1] * (-1, 1)])))], 4)
    x = np.array([0.28, 0.44, 0.52, 0.56, 0.58, 0.66, 0.66, 0.5]) + rng.uniform(-0.05, 0.1)
    y = np.array([shoulder, shoulder + 0.02, shoulder + 0.15, 0.2, 0.9, 0.9, -0.1, shoulder - 0.04])
    arm = smooth_curve(np.stack([x, y], axis=1), closed=True)
    arms = paint([pose.pixels(arm * (side, 1)) for side in (-1, 1)], 4)
    base = lung_point(anatomy, 1, np.array((0.0, min(anatomy.dome_tops) + 0.04)))[1]
    below = np.array([(-0.8, base + 0.08), (0, base), (0.8, base + 0.08), (0.8, 0.9), (-0.8, 0.9)])
    attenuation = anatomy.tissue * np.maximum(torso, 0.75 * arms) + 0.2 * paint([pose.pixels(below)], 40) * torso
    if anatomy.breast:
        angle = np.linspace(0, 2 * np.pi, 40)
        contour = anatomy.breast * np.stack([np.cos(angle), np.minimum(0.9 * np.sin(angle), 0.75)], axis=1)
        contour += (0.58 * anatomy.half_width, base - 0.06 + rng.normal(0, 0.02))
        attenuation += 0.13 * paint([pose.pixels(contour * (side, 1)) for side in (-1, 1)], 7)
    return attenuation


def draw_other_bones(anatomy: Anatomy, pose: Pose, rng: Generator) -> np.ndarray:
    """Attenuation of vertebrae, clavicles and shoulder blades, less the air of the trachea."""
    bones = blank()
    half = 0.6 * anatomy.mediastinum
    vertebra = np.array([(-half, 0), (half, 0), (half, 0.038), (-half, 0.038)])
    fill(bones, [pose.pixels(vertebra + (0, y)) for y in np.arange(-0.6, 0.6, 0.048)], 60)
    top, lift = lung_point(anatomy, 1, np.zeros(2))[1], rng.normal(0, 0.012)
    x, y = np.array([0.03, 0.1, 0.2, 0.3, 0.38]), top + np.array([0.11, 0.085, 0.06 + lift, 0.02, -0.02])
    clavicle = smooth_curve(np.stack([x, y], axis=1))
    blade = smooth_curve(np.stack([(0.3, 0.33, 0.38, 0.44), top + np.array([0.05, 0.2, 0.34, 0.2])], axis=1))
    for side in (-1, 1):
        upper, lower = (pose.pixels((clavicle + (0, shift)) * (side, 1)) for shift in (-0.012, 0.012))
        fill(bones, [np.concatenate([upper, lower[::-1]])], 150)
        stroke(bones, [upper, lower], 1, 220)
        stroke(bones, [pose.pixels(blade * (side, 1))], 2, 120)
    trachea = np.array([(-0.02, -0.7), (0.02, -0.7), (0.022, -0.13), (-0.018, -0.13)])
    return 0.17 * soften(bones, 1.3) - 0.12 * paint([pose.pixels(trachea)], 3)
