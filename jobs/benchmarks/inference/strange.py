"""Makes pictures unlike any frontal chest film: drawings, photographs, noise, and films inverted or turned."""

from collections.abc import Callable

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

WORDS = ("no", "acute", "cardiopulmonary", "process", "lungs", "clear", "heart", "size", "normal")


def lateral(seed: int, size_px: int = 256) -> np.ndarray:
    """Draws a crude lateral view: a body on black, spine at the back, one dark lung, heart in front, bright abdomen."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : size_px * 1j, 0 : 1 : size_px * 1j]
    middle = rng.uniform(0.42, 0.58)

    def ellipse(right, down, half_width, half_height):
        return ((x - middle - right) / half_width) ** 2 + ((y - down) / half_height) ** 2 < 1

    body = ellipse(0, 0.55, rng.uniform(0.31, 0.41), 0.6)
    film = np.where(body, 110.0, 12.0)
    film[body & (y < 0.25)] = 130
    film[ellipse(0.02, 0.42, 0.2, 0.27)] = 70
    film[body & (x > middle + 0.18) & (x < middle + 0.28)] = 160
    film[ellipse(-0.1, 0.55, 0.15, 0.12)] = 170
    film[body & (y > 0.68 + 0.15 * (x - middle))] = 190
    film = cv2.GaussianBlur(film, (0, 0), size_px / 50) + rng.normal(0, 3, film.shape)
    film = np.clip(film, 0, 255).astype(np.uint8)
    return film if rng.random() < 0.5 else np.ascontiguousarray(film[:, ::-1])


def photo(seed: int, size_px: int = 256) -> np.ndarray:
    """Cuts a random square from one of scikit-learn's two photographs, a flower and a temple, in grey."""
    rng = np.random.default_rng(seed)
    picture = cv2.cvtColor(load_sample_images().images[seed % 2], cv2.COLOR_RGB2GRAY)
    side = int(rng.integers(150, min(picture.shape)))
    top, left = (int(rng.integers(0, length - side + 1)) for length in picture.shape)
    cut = np.ascontiguousarray(picture[top : top + side, left : left + side])
    return cv2.resize(cut, (size_px, size_px), interpolation=cv2.INTER_AREA)


def page(seed: int, size_px: int = 256) -> np.ndarray:
    """Draws a page of printed words, dark on white."""
    rng = np.random.default_rng(seed)
    sheet = np.full((512, 512), 245, np.uint8)
    for line in range(12):
        text = " ".join(rng.choice(WORDS, 6))
        cv2.putText(sheet, text, (15, 40 * line + 35), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 20, 1, cv2.LINE_AA)
    return cv2.resize(sheet, (size_px, size_px), interpolation=cv2.INTER_AREA)


def noise(seed: int, size_px: int = 256) -> np.ndarray:
    """Makes grey noise with about the mean and deviation of a film."""
    return np.random.default_rng(seed).normal(120, 55, (size_px, size_px)).clip(0, 255).astype(np.uint8)


DRAWN: dict[str, Callable[[int, int], np.ndarray]] = {
    "lateral view, drawn": lateral,
    "photograph": photo,
    "page of text": page,
    "noise": noise,
}
TURNED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "film, inverted": lambda film: 255 - film,
    "film, upside down": lambda film: np.ascontiguousarray(film[::-1, ::-1]),
    "film, on its side": lambda film: np.ascontiguousarray(np.rot90(film)),
}
