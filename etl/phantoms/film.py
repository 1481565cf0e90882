"""One film: a chest with its findings, exposed, marked and grainy, as an 8-bit picture with exact boxes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from etl.phantoms.anatomy import draw_anatomy, draw_pose, enlarge_heart
from etl.phantoms.canvas import CANVAS_PX, blank, crop_noise, stroke
from etl.phantoms.chest import LUNG_DEPTH, Chest, draw_chest
from etl.phantoms.hospitals import HOSPITALS, Hospital
from etl.phantoms.lesions import bound, plant

FINDINGS = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax")
"""findings that can be planted; the order fixes which random stream each of them uses"""


@dataclass(frozen=True)
class Box:
    """Where a finding lies, in pixels of the film; width and height include both border pixels."""

    finding: str
    x: float
    y: float
    width: float
    height: float

    edges = property(lambda self: (self.x, self.y, self.width, self.height))


def render(
    key: tuple[int, int, int],
    female: bool,
    ap: bool,
    findings: tuple[str, ...],
    size_px: int,
    hospital: Hospital = HOSPITALS["a"],
) -> tuple[np.ndarray, list[Box]]:
    """Renders a (size_px, size_px) uint8 film; returns it and the boxes of its findings.

    key: seed, patient and follow-up, the only source of randomness. The chest, its pose, the exposure and the noise are
    the same with and without findings, and each finding is the same with and without the others.
    """
    chest, lines_rng, exposure_rng, finding_rng = _draw(key, female, ap, findings)
    attenuation, boxes = chest.rest + chest.vessels, []
    if "Cardiomegaly" in findings:
        boxes.append(Box("Cardiomegaly", *(size_px * edge for edge in bound(chest.heart > 0.5))))
    for finding in findings:
        if finding == "Cardiomegaly":
            continue
        for lesion in plant(finding, finding_rng[finding], chest):
            attenuation += LUNG_DEPTH * lesion.layer
            boxes.append(Box(finding, *(size_px * edge for edge in lesion.box())))
    if ap:
        attenuation += draw_lines(lines_rng, chest)
    return expose(attenuation, ap, exposure_rng, size_px, hospital), boxes


def draw_lungs(
    key: tuple[int, int, int], female: bool, ap: bool, findings: tuple[str, ...], size_px: int
) -> np.ndarray:
    """The exact lungs of the film that `render` draws of these arguments, (size_px, size_px) uint8: 255 lung, 0 none.

    Lung is what heart, mediastinum and diaphragm leave free, as in the masks of JSRT (van Ginneken et al. 2006) and
    Montgomery County (Jaeger et al. 2014); what a finding fills or collapses still belongs to it.
    """
    chest, *_ = _draw(key, female, ap, findings)
    interpolation = cv2.INTER_AREA if size_px < CANVAS_PX else cv2.INTER_LINEAR
    air = cv2.resize(chest.air, (size_px, size_px), interpolation=interpolation)
    return (255 * (air > 0.5)).astype(np.uint8)


def _draw(
    key: tuple[int, int, int], female: bool, ap: bool, findings: tuple[str, ...]
) -> tuple[Chest, Generator, Generator, dict[str, Generator]]:
    """The chest of a film, and the random streams of its lines, its exposure and each of its findings."""
    pose_rng, chest_rng, lines_rng, exposure_rng, *finding_rngs = np.random.default_rng(key).spawn(4 + len(FINDINGS))
    finding_rng = dict(zip(FINDINGS, finding_rngs, strict=True))
    anatomy = draw_anatomy(np.random.default_rng(key[:2]), female)
    if "Cardiomegaly" in findings:
        anatomy = enlarge_heart(finding_rng["Cardiomegaly"], anatomy)
    return draw_chest(anatomy, draw_pose(pose_rng), ap, chest_rng), lines_rng, exposure_rng, finding_rng


def draw_lines(rng: Generator, chest: Chest) -> np.ndarray:
    """Attenuation of the catheters and leads of a bedside film; most films have some."""
    mask = blank()
    for _ in range(rng.integers(0, 3)):
        entry, tip = (rng.uniform(-0.4, 0.4), -0.5), (rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.5))
        ends = chest.pose.pixels(np.array([entry, tip]))
        bend = ends.mean(axis=0) + rng.normal(0, 50, 2)
        t = np.linspace(0, 1, 24)[:, None]
        stroke(mask, [(1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * bend + t**2 * ends[1]], 1, 255)
    return mask.astype(np.float32) * np.float32(0.09 / 255)


def expose(attenuation: np.ndarray, ap: bool, rng: Generator, size_px: int, hospital: Hospital) -> np.ndarray:
    """Attenuation (CANVAS_PX, CANVAS_PX) -> (size_px, size_px) uint8: scatter, window, gamma, side marker, grain."""
    slope = rng.normal(0, 0.06, 2)
    y, x = np.ogrid[-1 : 1 : CANVAS_PX * 1j, -1 : 1 : CANVAS_PX * 1j]
    scatter = np.float32(0.05) * crop_noise(rng, 256) + np.float32(slope[0] * x) + np.float32(slope[1] * y)
    low, high, gamma = (rng.uniform(*ends) for ends in (hospital.window_low, hospital.window_high, hospital.gamma))
    body = np.minimum(attenuation * np.float32(4), 1)
    tone = (attenuation + scatter * body - np.float32(low)) * np.float32(1 / (high - low))
    # The toe of a film's curve: the darkest parts keep some contrast instead of turning black at once.
    tone = np.float32(0.5) * (tone + np.sqrt(tone * tone + np.float32(0.01)))
    grey = cv2.pow(np.minimum(tone, 1), gamma) * np.float32(245) + np.float32(rng.uniform(0, 5))
    mark(grey, ap, rng)
    interpolation = cv2.INTER_AREA if size_px < CANVAS_PX else cv2.INTER_LINEAR
    film = cv2.resize(grey, (size_px, size_px), interpolation=interpolation)
    return cv2.addWeighted(film, 1.0, crop_noise(rng, 3, size_px), rng.uniform(*hospital.grain), 0.0, dtype=cv2.CV_8U)


def mark(grey: np.ndarray, ap: bool, rng: Generator) -> None:
    """Writes the lead letter of the side, and AP PORTABLE on some AP films, onto a canvas of grey values."""
    row, right = int(rng.integers(30, 90)), CANVAS_PX - int(rng.integers(24, 60))
    brightness = float(rng.uniform(170, 250))
    cv2.putText(grey, "L", (right, row), cv2.FONT_HERSHEY_SIMPLEX, 0.7, brightness, 2, cv2.LINE_AA)
    if rng.random() < 0.5 and ap:
        cv2.putText(grey, "AP PORTABLE", (14, row), cv2.FONT_HERSHEY_SIMPLEX, 0.4, brightness, 1, cv2.LINE_AA)
