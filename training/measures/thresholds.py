"""Chooses the thresholds at which a finding is called, on the validation split, and measures them, on plain arrays."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_curve

from training.measures.metrics import check_predictions, has_both_classes, known_cells


@dataclass(frozen=True)
class OperatingPoints:
    """What calling a finding at a threshold achieves; arrays of (findings,) float64, 0..1, NaN if undefined."""

    sensitivity: np.ndarray
    """share of the positives that are called; undefined without positives"""
    specificity: np.ndarray
    """share of the negatives that are not called; undefined without negatives"""
    ppv: np.ndarray
    """positive predictive value: share of positives among the called images; undefined if none is called"""
    npv: np.ndarray
    """negative predictive value: share of negatives among the images not called; undefined if all are called"""


def youden_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Threshold per finding with the largest sensitivity + specificity - 1; of equally good ones, the highest.

    labels: (images, findings) 1, 0 or NaN. scores: the same shape; the finding is called at `score >= threshold`.
    Returns (findings,) float64, each one of the finding's scores; NaN for a finding without both classes.
    Raises ValueError as check_predictions does. Source: Youden, Cancer 3 (1950), 32-35.
    """
    check_predictions(labels, scores)
    thresholds = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(has_both_classes(labels)):
        present, known_scores = known_cells(labels, scores, column)
        false_positives, true_positives, cuts = roc_curve(present, known_scores, drop_intermediate=False)
        num_positives, num_negatives = present.sum(), (~present).sum()
        # Whole numbers, because rounding errors in rates would break ties arbitrarily.
        hits, false_calls = np.rint(true_positives * num_positives), np.rint(false_positives * num_negatives)
        gains = hits * num_negatives - false_calls * num_positives
        # The first cut is infinity, at which nothing is called.
        thresholds[column] = cuts[1 + np.argmax(gains[1:])]
    return thresholds


def sensitivity_thresholds(labels: np.ndarray, scores: np.ndarray, sensitivity: float) -> np.ndarray:
    """Highest threshold per finding whose sensitivity is at least `sensitivity`.

    labels, scores: as for youden_thresholds. sensitivity: above 0 and at most 1. Returns (findings,) float64, each the
    score of a positive; NaN for a finding without positives. Raises ValueError as check_predictions does, and for a
    sensitivity outside its range.
    """
    check_predictions(labels, scores)
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity is {sensitivity}, expected above 0 and at most 1")
    thresholds = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero((labels == 1).any(axis=0)):
        of_positives = np.sort(scores[labels[:, column] == 1, column])[::-1]
        reached = np.arange(1, len(of_positives) + 1) / len(of_positives)
        thresholds[column] = of_positives[np.searchsorted(reached, sensitivity)]
    return thresholds


def measure_thresholds(labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> OperatingPoints:
    """Sensitivity, specificity and predictive values of `score >= threshold` on any split.

    labels, scores: (images, findings), as for youden_thresholds. thresholds: (findings,); a NaN makes all four NaN.
    The predictive values are valid only for this split's share of positives. Raises ValueError as check_predictions
    does, and unless there is one threshold per finding.
    """
    check_predictions(labels, scores)
    if thresholds.shape != labels.shape[1:]:
        raise ValueError(f"thresholds have shape {thresholds.shape}, expected one per finding: {labels.shape[1:]}")
    called = scores >= thresholds
    hits, misses, false_calls, passes = (
        ((labels == value) & (called == call)).sum(axis=0)
        for value, call in ((1, True), (1, False), (0, True), (0, False))
    )
    chosen = ~np.isnan(thresholds)
    points = rates_of(hits, misses, false_calls, passes)
    return OperatingPoints(*(np.where(chosen, rate, np.nan) for rate in vars(points).values()))


def rates_of(hits: np.ndarray, misses: np.ndarray, false_calls: np.ndarray, passes: np.ndarray) -> OperatingPoints:
    """The four rates of these numbers of images, which are arrays of one shape; NaN where a share has no images."""
    shares = ((hits, misses), (passes, false_calls), (hits, false_calls), (passes, misses))
    return OperatingPoints(
        *(
            np.divide(right, right + wrong, out=np.full(np.shape(right), np.nan), where=right + wrong > 0)
            for right, wrong in shares
        )
    )
