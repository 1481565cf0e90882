"""A model's predictions for a split: the loop computes them, the record and the ensemble have them measured."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """Labels and logits of a split's images; the rows are in the order of the ranks that read them."""

    image_ids: np.ndarray
    """(images,) str"""
    labels: np.ndarray
    """(images, findings) float32: 1 present, 0 absent, NaN unknown"""
    logits: np.ndarray
    """(images, findings) float32; for classes, the log-odds of their softmax"""
