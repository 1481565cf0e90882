"""Boxes of masks, and how far they overlap, for tests."""

import cv2
import numpy as np


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height of the box around a mask, in pixels."""
    return cv2.boundingRect(mask.astype(np.uint8))


def iou(one: tuple, other: tuple) -> float:
    """Intersection over union of two boxes: left, top, width, height."""
    start, end = np.maximum(one[:2], other[:2]), np.minimum(np.add(one[:2], one[2:]), np.add(other[:2], other[2:]))
    common = np.prod((end - start).clip(0))
    return float(common / (one[2] * one[3] + other[2] * other[3] - common))
