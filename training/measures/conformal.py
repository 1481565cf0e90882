"""Answers `present`, `unsure` and `absent` at an error rate that the user sets, by conformal prediction; plain arrays.

The bounds are chosen on the validation split and only measured on the other splits. They are split-conformal, with a
guarantee for each class by itself (Mondrian): Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World"
(2005), section 4.5; Sadinle, Lei and Wasserman, J. Am. Stat. Assoc. 114 (2019), 223-234. Films of one patient are
alike, so patients, not films, count as drawn at random: Lee, Barber and Willett, "Distribution-free inference with
hierarchical data", arXiv:2306.06342 (2023).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRESENT, UNSURE, ABSENT = ANSWERS = ("present", "unsure", "absent")
NO_ANSWER = ""
"""of an image that the model is not asked about, such as one unlike the training data"""
ROUNDING = 1e-9
"""largest error of a sum of shares of patients; far less than one film of one patient"""


@dataclass(frozen=True)
class Bounds:
    """Between which probabilities the answer is `unsure`; arrays of (findings,)."""

    absent_below: np.ndarray
    """float64, probability below which the answer is absent; -inf (never) with too few patients who have the finding"""
    present_above: np.ndarray
    """float64, probability above which the answer is present, at least absent_below; inf (never) with too few patients
    who lack the finding"""


def fit_bounds(labels: np.ndarray, probabilities: np.ndarray, patients: Sequence, error_rate: float) -> Bounds:
    """Bounds with which at most `error_rate` of the films with a finding are answered absent, and without it present.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. probabilities: the same shape, finite where known; any
    score will do. patients: (images,) identifiers. error_rate: above 0 and below 0.5.
    The chance of an error is that of a film of a new patient, drawn among his films with (or without) the finding, over
    new patients and validation splits alike. It needs no assumption but that new patients are drawn as these were.
    If even one bound for both would do, the two would cross; both become their mean, and no film is unsure.
    Raises ValueError as check_predictions does, and for another error rate.
    """
    # Imported here because a service, which only answers, does without scikit-learn.
    from training.measures.metrics import check_predictions

    check_predictions(labels, probabilities)
    if not 0 < error_rate < 0.5:
        raise ValueError(f"error_rate is {error_rate}, expected above 0 and below 0.5")
    patients, num_findings = np.asarray(patients), labels.shape[1]
    lowest, highest = np.empty((2, num_findings))
    for column in range(num_findings):
        present, absent = (labels[:, column] == value for value in (1, 0))
        scores = np.asarray(probabilities[:, column], np.float64)
        lowest[column] = _lowest_of(scores[present], patients[present], error_rate)
        highest[column] = -_lowest_of(-scores[absent], patients[absent], error_rate)
    crossed = lowest > highest
    lowest[crossed] = highest[crossed] = (lowest[crossed] + highest[crossed]) / 2
    return Bounds(lowest, highest)


def _lowest_of(scores: np.ndarray, patients: np.ndarray, error_rate: float) -> float:
    """The score below which a film of a new patient lies with a chance of at most `error_rate`; -inf if none is known.

    scores, patients: (films,). Each of K patients has the weight 1 / (K + 1), spread evenly over his films; the rest
    lies at -inf, as if the new patient scored lower than all others.
    """
    names, index, num_films = np.unique(patients, return_inverse=True, return_counts=True)
    allowed = error_rate * (len(names) + 1) - 1 + ROUNDING
    """number of patients whose films may lie below the bound"""
    if allowed < 0:
        return -np.inf
    levels, level = np.unique(scores, return_inverse=True)
    at = np.bincount(level, 1 / num_films[index])
    below = np.cumsum(at) - at
    return levels[np.flatnonzero(below <= allowed)[-1]]


def count_patients(labels: np.ndarray, patients: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Number of patients with each finding, and without it, (findings,) int64; a patient may be among both.

    labels: (images, findings) 1, 0 or NaN. patients: (images,).
    """
    patients = np.asarray(patients)
    counts = [[len(np.unique(patients[column == value])) for column in labels.T] for value in (1, 0)]
    return np.array(counts[0]), np.array(counts[1])


def patients_needed(error_rate: float) -> int:
    """Smallest number of patients with, or without, a finding that can bound its errors at this rate, above 0."""
    return math.ceil(1 / error_rate - 1 - ROUNDING)


def smallest_rate(num_patients: int) -> float:
    """Smallest error rate that this number of patients can bound: the reverse of patients_needed."""
    return 1 / (num_patients + 1)


def answers_at(probabilities: np.ndarray, bounds: Bounds) -> np.ndarray:
    """The answer for each cell, of ANSWERS; NaN is unsure. probabilities: (images, findings), as for fit_bounds."""
    # In float64, like the bounds.
    values = np.asarray(probabilities, np.float64)
    return np.select([values > bounds.present_above, values < bounds.absent_below], [PRESENT, ABSENT], UNSURE)
