"""Sensitivity, specificity, predictive values and shares of answers, with intervals over patients, on plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from training.measures.conformal import ABSENT, PRESENT, UNSURE
from training.measures.intervals import CONFIDENCE, MIN_PATIENTS
from training.measures.metrics import check_predictions
from training.measures.resampling import blocks_of, patient_weights
from training.measures.thresholds import OperatingPoints, rates_of

CELLS = ((1, True), (1, False), (0, True), (0, False))
"""label and call of hits, misses, false calls and passes"""


@dataclass(frozen=True)
class Rates:
    """What calling findings achieves; arrays of (findings,) float64, 0..1, NaN if undefined."""

    values: OperatingPoints
    """on the images themselves"""
    low: OperatingPoints
    """2.5th percentiles of the resamples"""
    high: OperatingPoints
    """97.5th percentiles of the resamples"""


class Share(NamedTuple):
    """A share of each finding's images with its 95% interval by patient; (findings,) float64, 0..1, NaN: undefined."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class AnswerRates:
    """How often the answers are wrong, and how often unsure."""

    present_answered_absent: Share
    """of the images with the finding, those of a patient together counting as one"""
    absent_answered_present: Share
    """of the images without the finding, counted alike"""
    unsure: Share
    """of all images"""


def bootstrap_rates(
    labels: np.ndarray,
    called: np.ndarray,
    patients: Sequence,
    *,
    num_resamples: int,
    seed: int,
    weights: np.ndarray | None = None,
) -> Rates:
    """The four rates of each finding with their 95% percentile intervals over patients.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. called: (images, findings) bool, whether the model
    calls the finding. patients, num_resamples, seed: as for bootstrap_areas, which draws the same patients. weights:
    (images, findings) above 0, how much an image counts; None: all count alike.
    A rate without images is NaN. Its interval is NaN too if its images are of fewer than MIN_PATIENTS patients.
    Every resample of a rate of 0 or 1 has the same rate. Its interval is Clopper's and Pearson's for that number of
    patients, as if the model were right, or wrong, once for each (Biometrika 26 (1934), 404-413).
    Raises ValueError for wrong shapes or labels.
    """
    check_predictions(labels, called.astype(np.float64))
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    members = csr_array((np.ones(len(index)), (index, np.arange(len(index)))), shape=(len(names), len(index)))
    cells = [(labels == value) & (called == call) for value, call in CELLS]
    weights = np.ones(labels.shape) if weights is None else weights
    counts = np.stack([members @ (cell * weights) for cell in cells])
    """images of each cell, patient and finding, or their weights"""
    by_patient = counts.transpose(0, 2, 1).reshape(-1, len(names))
    blocks = blocks_of(num_resamples, max(len(by_patient), len(names)))
    drawn = np.hstack([by_patient @ patient_weights(len(names), block, seed) for block in blocks])
    resampled = rates_of(*drawn.reshape(len(CELLS), labels.shape[1], num_resamples))
    hits, misses, false_calls, passes = counts > 0
    groups = (hits | misses, passes | false_calls, hits | false_calls, passes | misses)
    values = rates_of(*counts.sum(axis=1))
    bounds = [
        _ends(rate, drawn_rates, group.sum(axis=0))
        for rate, drawn_rates, group in zip(vars(values).values(), vars(resampled).values(), groups, strict=True)
    ]
    low, high = (OperatingPoints(*ends) for ends in zip(*bounds, strict=True))
    return Rates(values, low, high)


def bootstrap_answers(
    labels: np.ndarray, answers: np.ndarray, patients: Sequence, *, num_resamples: int, seed: int
) -> AnswerRates:
    """How often the answers are wrong, and how often unsure, on any split.

    labels: (images, findings) 1, 0 or NaN. answers: the same shape, each one of ANSWERS, or NO_ANSWER, which counts as
    neither wrong nor unsure. patients, num_resamples, seed, intervals: as for bootstrap_rates.
    In the shares of errors all images of a patient with (or without) a finding together count as one, as in what
    fit_bounds promises. The share of unsure images counts images, because that is the work that is left to people.
    """
    options = {"num_resamples": num_resamples, "seed": seed}
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    of_patient = [np.apply_along_axis(lambda hits: np.bincount(index, hits)[index], 0, labels == one) for one in (1, 0)]
    # An unknown label is in no share, so any weight will do.
    weights = 1 / np.maximum(np.where(labels == 1, *of_patient), 1)
    # With the errors of positives and the right answers to negatives as calls, the two rates are those of errors.
    called = np.where(labels == 1, answers == ABSENT, answers != PRESENT)
    errors = bootstrap_rates(labels, called, patients, weights=weights, **options)
    unsure = bootstrap_rates(np.ones(labels.shape), answers == UNSURE, patients, **options)
    return AnswerRates(
        *(_share(*pair) for pair in ((errors, "sensitivity"), (errors, "specificity"), (unsure, "sensitivity")))
    )


def _share(rates: Rates, name: str) -> Share:
    return Share(*(getattr(part, name) for part in (rates.values, rates.low, rates.high)))


def _ends(rates: np.ndarray, resampled: np.ndarray, num_patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of a rate of each finding.

    rates, num_patients: (findings,). resampled: (findings, resamples), NaN where a resample lacks the images.
    """
    low, high = np.full((2, len(rates)), np.nan)
    tail = (1 - CONFIDENCE) / 2
    for finding in np.flatnonzero((num_patients >= MIN_PATIENTS) & ~np.isnan(rates)):
        low[finding], high[finding] = np.nanpercentile(resampled[finding], [100 * tail, 100 * (1 - tail)])
        bound = tail ** (1 / num_patients[finding])
        if rates[finding] == 1:
            low[finding] = bound
        elif rates[finding] == 0:
            high[finding] = 1 - bound
    return low, high
