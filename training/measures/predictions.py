"""What a model says about a split: the loop computes it, record and ensemble have it measured."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """Rows in the order of the ranks."""

    image_ids: np.ndarray
    """(images,) str"""
    labels: np.ndarray
    """(images, findings) float32: 1, 0, NaN unknown"""
    logits: np.ndarray
    """(images, findings) float32; of classes the log-odds of their softmax"""
