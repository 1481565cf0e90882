"""The findings planted into a chest: what each looks like, where it sits, and its exact box.

The signs follow Hansell et al., "Fleischner Society: glossary of terms for thoracic imaging", Radiology 2008. Every
sign varies in size and strength, down to subtle. For cardiomegaly, anatomy.enlarge_heart changes the anatomy instead.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from etl.phantoms.canvas import CANVAS_PX, blank, crop_noise, paint, smooth_curve, soften, stroke
from etl.phantoms.chest import LUNG_DEPTH, Chest

BOX_LEVEL = 0.2
"""a box bounds the canvas pixels whose change of attenuation exceeds this share of the lesion's largest change"""


@dataclass(frozen=True)
class Lesion:
    """One lesion: layer (CANVAS_PX, CANVAS_PX) float32, the change of attenuation in shares of LUNG_DEPTH."""

    finding: str
    layer: np.ndarray

    def box(self) -> tuple[float, float, float, float]:
        """x, y, width, height as fractions of the film's side."""
        change = np.abs(self.layer)
        return bound(change > BOX_LEVEL * change.max())


def bound(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Tight box of a boolean (CANVAS_PX, CANVAS_PX) mask: x, y, width, height as fractions of the side."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    return tuple(float(edge) / CANVAS_PX for edge in (left, top, right - left, bottom - top))


def plant(finding: str, rng: Generator, chest: Chest) -> list[Lesion]:
    """Draws a finding into a chest: one lesion or a few, none if the film has no room for it."""
    layers = SIGNS[finding](rng, chest)
    return [Lesion(finding, layer) for layer in layers if np.abs(layer).max() > 0.1]


def pick_spot(rng: Generator, chest: Chest, highest: float = 0.0, lowest: float = 1.0) -> np.ndarray:
    """A random canvas position in aerated lung, away from its edge, between two lung heights (0 apex, 1 angle)."""
    top, bottom = chest.place(1, 0.0, highest)[1], chest.place(1, 0.0, lowest)[1]
    rows, columns = np.nonzero(cv2.erode(chest.air[::8, ::8], np.ones((3, 3))) > 0.8)
    inside = (rows * 8 > top) & (rows * 8 < bottom)
    chosen = rng.integers(max(1, inside.sum()))
    if not inside.any():
        return chest.place(1, 0.6, 0.4)
    return np.array((columns[inside][chosen], rows[inside][chosen])) * 8.0 + rng.uniform(-4, 4, 2)


def blob(rng: Generator, centre: np.ndarray, radius_px: float, lobes: float) -> np.ndarray:
    """(n, 2) outline around a centre; lobes: amplitude of its bulges as a share of the radius."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    order, phase = np.array([2, 3, 5]), rng.uniform(0, 2 * np.pi, 3)
    bulge = 1 + lobes * np.sin(angle[:, None] * order + phase) @ (rng.uniform(0.3, 1.0, 3) / np.sqrt(order))
    return centre + radius_px * bulge[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def draw_strength(rng: Generator, subtle: float, strong: float) -> float:
    """A lesion's largest change of attenuation in shares of LUNG_DEPTH: mostly strong, with a tail of subtle ones."""
    return strong - (strong - subtle) * rng.random() ** 2.5


def nodule(rng: Generator, chest: Chest) -> list[np.ndarray]:
    """Round opacities, 4 to 6% of the film's width (3 cm at most, by definition)."""
    layers = []
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(0.02, 0.03) * CANVAS_PX
        round_shadow = paint([blob(rng, pick_spot(rng, chest, 0.1, 0.9), radius, 0.06)], 1.6)
        layers.append(draw_strength(rng, 0.4, 1.1) * round_shadow)
    return layers


def mass(rng: Generator, chest: Chest) -> list[np.ndarray]:
    """A lobulated opacity above 3 cm: 11 to 20% of the film's width."""
    radius = rng.uniform(0.055, 0.1) * CANVAS_PX
    shadow = paint([blob(rng, pick_spot(rng, chest, 0.12, 0.85), radius, 0.16)], 2.5)
    return [draw_strength(rng, 0.4, 1.0) * shadow * (0.2 + 0.8 * chest.air)]


def distance_from(centre: np.ndarray, radii_px: np.ndarray, angle: float) -> np.ndarray:
    """(CANVAS_PX, CANVAS_PX) distance from a centre in units of an ellipse's rotated half axes."""
    y, x = np.ogrid[:CANVAS_PX, :CANVAS_PX]
    x, y = np.float32(x - centre[0]), np.float32(y - centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (x * cos + y * sin) / np.float32(radii_px[0]), (y * cos - x * sin) / np.float32(radii_px[1])
    return np.sqrt(along * along + across * across)


def infiltration(rng: Generator, chest: Chest) -> list[np.ndarray]:
    """An ill-defined patch of fine reticulonodular texture that hides nothing."""
    layers = []
    grain = np.maximum(crop_noise(rng, 26) + 0.1, 0)
    for _ in range(rng.integers(1, 4)):
        centre = pick_spot(rng, chest, 0.2, 0.9)
        distance = distance_from(centre, rng.uniform(0.12, 0.22, 2) * CANVAS_PX, rng.uniform(0, np.pi))
        layers.append(draw_strength(rng, 0.25, 0.65) * grain * np.clip(1.5 - 1.5 * distance, 0, 1) * chest.air)
    return layers


def pneumonia(rng: Generator, chest: Chest) -> list[np.ndarray]:
    """A fluffy consolidation in one lobe, crossed by air bronchograms."""
    centre = pick_spot(rng, chest, 0.25, 0.9)
    distance = distance_from(centre, rng.uniform(0.12, 0.19, 2) * CANVAS_PX, rng.uniform(0, np.pi))
    fluff = np.clip(2.6 * (1 - distance) + 0.75 * crop_noise(rng, 44), 0, 1)
    tubes = blank()
    side = 1 if centre[0] > chest.pose.centre[0] else -1
    hilum = chest.place(side, 0.2, 0.5)
    for target in centre + rng.normal(0, 0.07, (6, 2)) * CANVAS_PX:
        bend = (hilum + target) / 2 + rng.normal(0, 6, 2)
        stroke(tubes, [smooth_curve(np.stack([hilum, bend, target]))], 3, 255)
    near = np.clip(1.6 - distance, 0, 1)
    return [draw_strength(rng, 0.45, 1.0) * fluff * near * (1 - 0.65 * soften(tubes, 1.0)) * chest.air]


def effusion(rng: Generator, chest: Chest) -> list[np.ndarray]:
    """Fluid above the diaphragm: a meniscus that climbs the lateral wall and blunts the costophrenic angle."""
    layers = []
    sides = (-1, 1) if rng.random() < 0.25 else (rng.choice((-1, 1)),)
    for side in sides:
        level, flat = 0.14 + 0.34 * rng.random() ** 1.7, rng.uniform(0.4, 0.65)
        x = np.linspace(0.0, 1.1, 16)
        surface = np.stack([x, 1 - level * (flat + (1 - flat) * x**4)], axis=1)
        fluid = np.concatenate([surface, [(1.1, 1.1), (0.0, 1.1)]])
        shadow = paint([np.stack([chest.place(side, *point) for point in fluid])], 2.2)
        layers.append(shadow * (rng.uniform(0.75, 1.0) * chest.air - chest.vessels / LUNG_DEPTH))
    return layers


def atelectasis(rng: Generator, chest: Chest) -> list[np.ndarray]:
    """Plate-like bands across the lower lung, sometimes beside a dense wedge of lost volume."""
    layers = []
    for _ in range(rng.integers(1, 4)):
        centre, angle = pick_spot(rng, chest, 0.35, 0.95), rng.normal(0, 0.3)
        along = np.array((np.cos(angle), np.sin(angle)))
        across = np.array((-along[1], along[0]))
        half_length, half_width = rng.uniform((0.07, 0.007), (0.12, 0.013)) * CANVAS_PX
        t = np.linspace(-1, 1, 12)[:, None]
        middle = centre + half_length * t * along + rng.normal(0, 5) * (1 - t**2) * across
        taper = half_width * np.sqrt(1.05 - t**2) * across
        plate = paint([np.concatenate([middle + taper, (middle - taper)[::-1]])], 1.0)
        layers.append(draw_strength(rng, 0.5, 1.15) * plate * (0.1 + 0.9 * chest.air))
    if rng.random() < 0.3:
        side, height, reach = rng.choice((-1, 1)), rng.uniform(0.15, 0.3), rng.uniform(0.4, 0.7)
        wedge = [chest.place(side, *point) for point in ((0.1, 0.9 - height), (reach, 1.0), (0.1, 1.0))]
        layers.append(rng.uniform(0.5, 0.8) * paint([np.stack(wedge)], 3.0) * (0.1 + 0.9 * chest.air))
    return layers


def pneumothorax(rng: Generator, chest: Chest) -> list[np.ndarray]:
    """A dark rim without vessels outside the thin line of the visceral pleura, widest at the apex."""
    side = rng.choice((-1, 1))
    outline, lung = chest.outlines[(side + 1) // 2], chest.lungs[(side + 1) // 2]
    root = chest.place(side, 0.1, 0.75)
    height = np.clip((root[1] - outline[:, 1:]) / (root[1] - outline[:, 1:].min()), 0, 1)
    collapsed = root + (outline - root) * (1 - rng.uniform(0.13, 0.34) * (0.45 + 0.55 * height))
    rim = lung * (1 - paint([collapsed], 1.0)) * (chest.air > 0.5)
    line = blank()
    stroke(line, [collapsed], 3, 255, closed=True)
    pleura = soften(line, 0.7) * chest.air * np.float32(draw_strength(rng, 0.4, 0.8))
    return [pleura - rim * (draw_strength(rng, 0.18, 0.4) + chest.vessels / LUNG_DEPTH)]


SIGNS = {
    "Atelectasis": atelectasis,
    "Effusion": effusion,
    "Infiltration": infiltration,
    "Mass": mass,
    "Nodule": nodule,
    "Pneumonia": pneumonia,
    "Pneumothorax": pneumothorax,
}
