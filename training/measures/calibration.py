"""Calibrates probabilities, and measures how well they agree with what is observed, on plain arrays.

Temperatures are fitted, and thresholds chosen (thresholds.py), on the validation split; others are only measured.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from training.measures.classes import fit_class_temperature, with_temperature
from training.measures.metrics import check_predictions, has_both_classes, known_cells
from training.measures.thresholds import sensitivity_thresholds, youden_thresholds

MAX_TEMPERATURE = 100.0
"""temperatures are searched from 1/100 to 100; at 100, the logits order the images no better than chance"""
SENSITIVITY = 0.9
"""sensitivity that the second operating point must reach"""


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model's logits, fitted on the validation split; arrays of (findings,) float64."""

    shifts: np.ndarray
    """added to the logits: minus the logarithm of the weight that a positive label had in the loss"""
    temperatures: np.ndarray
    """divide the shifted logits, 0.01..100; classes share one, which divides the logits of their softmax"""
    thresholds: dict[str, np.ndarray]
    """operating point -> lowest score, see `scores`, at which a finding is called; NaN if undefined"""
    exclusive: bool = False
    """whether the findings are classes: their logits are the log-odds of a softmax, and their probabilities sum to 1"""

    def shifted(self, logits: np.ndarray) -> np.ndarray:
        """The logits that a loss without weights would have given. logits: (images, findings) or (findings,)."""
        return np.asarray(logits, np.float64) + self.shifts

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Log-odds of the calibrated probabilities, float64. logits: (images, findings)."""
        shifted = self.shifted(logits)
        return with_temperature(shifted, self.temperatures[0]) if self.exclusive else shifted / self.temperatures

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, 0..1 float64. logits: (images, findings)."""
        return expit(self.calibrated(logits))

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """What thresholds are compared with: the model's own logits or, of classes, the calibrated ones.

        A temperature keeps the order in which a finding's logits put the images. It can change that of a class, which
        depends on the other classes too. logits: (images, findings).
        """
        return self.calibrated(logits) if self.exclusive else logits

    @property
    def threshold_probabilities(self) -> dict[str, np.ndarray]:
        """The thresholds as calibrated probabilities, 0..1 float64; NaN if undefined."""
        return {
            name: expit(values if self.exclusive else self.shifted(values) / self.temperatures)
            for name, values in self.thresholds.items()
        }


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins of the predicted probability, as arrays of (findings, bins); the last bin includes 1."""

    predicted: np.ndarray
    """float64, mean probability of the bin's images, 0..1; NaN in an empty bin"""
    observed: np.ndarray
    """float64, share of positives among the bin's images, 0..1; NaN in an empty bin"""
    num_images: np.ndarray
    """int64, images of the bin whose label is known"""

    @property
    def expected_calibration_error(self) -> np.ndarray:
        """ECE per finding, (findings,) float64, 0..1; NaN for a finding without a known label.

        The sum over the bins of |observed - predicted|, weighted by the bin's share of the images. It takes the
        probability of the finding itself, not that of the likelier class. Source: Naeini et al., AAAI 2015; Guo et al.,
        ICML 2017.
        """
        totals = self.num_images.sum(axis=1)
        errors = np.nansum(self.num_images * np.abs(self.observed - self.predicted), axis=1)
        return np.divide(errors, totals, out=np.full(len(totals), np.nan), where=totals > 0)


def fit_calibration(
    labels: np.ndarray, logits: np.ndarray, pos_weight: np.ndarray, exclusive: bool = False
) -> Calibration:
    """Fits a model's calibration and operating thresholds to its logits on the validation split.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. logits: the same shape, finite where known.
    pos_weight: (findings,), weight of a positive label in the loss. It has shifted the logits by its logarithm, which
    no temperature can undo. exclusive: each image has exactly one of the findings, the logits are the log-odds of a
    softmax, and no class has a weight. The thresholds are the one with the largest Youden's J, and the highest one with
    a sensitivity of at least SENSITIVITY. Raises ValueError as check_predictions and, of classes, check_classes do.
    """
    shifts = -np.log(pos_weight, dtype=np.float64)
    shifted = np.asarray(logits, np.float64) + shifts
    if exclusive:
        assert not shifts.any(), "a loss over classes has no weights of positives"
        temperatures = np.full(len(shifts), fit_class_temperature(labels, shifted, MAX_TEMPERATURE))
    else:
        temperatures = fit_temperatures(labels, shifted)
    scores = Calibration(shifts, temperatures, {}, exclusive).scores(logits)
    thresholds = {
        "youden": youden_thresholds(labels, scores),
        f"sensitivity_{SENSITIVITY}": sensitivity_thresholds(labels, scores, SENSITIVITY),
    }
    return Calibration(shifts, temperatures, thresholds, exclusive)


def fit_temperatures(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The temperature per finding that minimises the validation split's cross-entropy when it divides the logits.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. logits: the same shape, finite where known.
    Returns (findings,) float64, 0.01..100; 1.0 for a finding without both classes. A temperature moves no probability
    across 0.5, so logits that a positive weight in the loss has shifted stay shifted. Without soft_targets, logits that
    part a few positives from the rest would make each probability 0 or 1 in float32, and their order would be lost.
    Raises ValueError as check_predictions does.
    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    check_predictions(labels, logits)
    temperatures = np.ones(labels.shape[1])
    bound = math.log(MAX_TEMPERATURE)
    for column in np.flatnonzero(has_both_classes(labels)):
        present, known_logits = known_cells(labels, np.asarray(logits, np.float64), column)
        targets = soft_targets(present)
        # The loss is convex in 1/temperature, so over the logarithm, too, it falls to one minimum and then rises.
        fit = minimize_scalar(
            lambda log_temperature, logits=known_logits, targets=targets: cross_entropy(
                logits * math.exp(-log_temperature), targets
            ),
            bounds=(-bound, bound),
            method="bounded",
            options={"xatol": 1e-6},
        )
        temperatures[column] = math.exp(fit.x)
    return temperatures


def fit_recalibration(
    labels: np.ndarray, logits: np.ndarray, patients: np.ndarray, min_patients: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset per finding that make `scale * logit + offset` calibrated logits of these images.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. logits: the same shape, finite where known. patients:
    (images,). Returns two arrays of (findings,) float64, the scales above 0, so that the order of the images stays;
    1 and 0 for a finding that fewer than `min_patients` patients have, or lack, and for one whose scale reaches a
    bound, because the logits order the images no better than chance, or perfectly.
    Raises ValueError as check_predictions does.
    Source: Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers (1999),
    61-74, with his soft_targets.
    """
    check_predictions(labels, logits)
    scales, offsets = np.ones(labels.shape[1]), np.zeros(labels.shape[1])
    bound = math.log(MAX_TEMPERATURE)
    for column in range(labels.shape[1]):
        groups = [patients[labels[:, column] == value] for value in (0, 1)]
        if min(len(np.unique(group)) for group in groups) < min_patients:
            continue
        present, known_logits = known_cells(labels, np.asarray(logits, np.float64), column)
        targets = soft_targets(present)

        def loss(log_scale_and_offset: np.ndarray, targets=targets, known_logits=known_logits) -> float:
            return cross_entropy(math.exp(log_scale_and_offset[0]) * known_logits + log_scale_and_offset[1], targets)

        fit = minimize(loss, [0.0, 0.0], method="L-BFGS-B", bounds=[(-bound, bound), (None, None)])
        if abs(fit.x[0]) < bound:
            scales[column], offsets[column] = math.exp(fit.x[0]), fit.x[1]
    return scales, offsets


def soft_targets(present: np.ndarray) -> np.ndarray:
    """Probabilities to fit instead of 1 and 0: they keep those of a few positives away from both.

    present: (images,) bool. Returns (images,) float64: (p + 1) / (p + 2) for each of p positives and 1 / (n + 2) for
    each of n negatives. Source: Platt 1999, as in fit_recalibration.
    """
    num_positives, num_negatives = present.sum(), (~present).sum()
    return np.where(present, (num_positives + 1) / (num_positives + 2), 1 / (num_negatives + 2))


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the images. logits: (images,). targets: (images,), 0..1."""
    return float(np.mean(np.logaddexp(0, logits) - targets * logits))


def bin_reliability(labels: np.ndarray, probabilities: np.ndarray, num_bins: int) -> Reliability:
    """Predicted and observed frequency in equal-width bins of the probability, for the ECE and the reliability diagram.

    labels: (images, findings) 1, 0 or NaN. probabilities: the same shape, 0..1. num_bins: at least 1; 15 is usual.
    Raises ValueError as check_predictions does, for probabilities outside 0..1, and for fewer than one bin.
    Source: DeGroot and Fienberg, The Statistician 32 (1983), 12-22.
    """
    check_predictions(labels, probabilities)
    known = ~np.isnan(labels)
    outside = probabilities[known & ((probabilities < 0) | (probabilities > 1))]
    if len(outside):
        raise ValueError(f"a probability is {outside[0]}, expected 0 to 1: pass probabilities, not logits")
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, expected at least 1")
    predicted, observed = np.full((2, labels.shape[1], num_bins), np.nan)
    num_images = np.zeros(predicted.shape, np.int64)
    for column in range(labels.shape[1]):
        present, chances = known_cells(labels, probabilities.astype(np.float64), column)
        bins = np.minimum((chances * num_bins).astype(int), num_bins - 1)
        num_images[column] = counts = np.bincount(bins, minlength=num_bins)
        for means, weights in ((predicted, chances), (observed, present)):
            np.divide(np.bincount(bins, weights, num_bins), counts, out=means[column], where=counts > 0)
    return Reliability(predicted, observed, num_images)
