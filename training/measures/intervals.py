"""How certain a measured AUROC or average precision is: a bootstrap over patients, on plain arrays.

Images of one patient resemble each other, so the bootstrap draws patients, not images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from training.measures.metrics import has_both_classes, mean_over_findings
from training.measures.resampling import blocks_of, patient_weights, resample

CONFIDENCE = 0.95
MIN_PATIENTS = 2
"""patients with positives, and with negatives, that an interval needs: resampling a single one shows no variation"""


@dataclass(frozen=True)
class Intervals:
    """A measure of each finding and, last, its mean over the findings; arrays of (findings + 1,)."""

    values: np.ndarray
    """float64, on the images themselves; NaN if undefined"""
    low: np.ndarray
    """float64, 2.5th percentile of the resamples; NaN if undefined"""
    high: np.ndarray
    """float64, 97.5th percentile of the resamples; NaN if undefined"""
    num_resamples: np.ndarray
    """int64, resamples in which the measure is defined; the percentiles leave out the others"""


@dataclass(frozen=True)
class Areas:
    """The areas below the ROC curve and the precision-recall curve."""

    auroc: Intervals
    average_precision: Intervals


def bootstrap_areas(
    labels: np.ndarray, scores: np.ndarray, patients: Sequence, *, num_resamples: int, seed: int
) -> Areas:
    """AUROC and average precision of each finding and their means, with 95% percentile intervals over patients.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. scores: the same shape, higher means more likely.
    patients: (images,) identifiers, all of one type. num_resamples: 1,000 is usual. seed: at least 0; the same seed
    gives the same intervals, whatever the number of cores.
    The mean of a resample is over the findings defined in it, as on the images themselves. An interval is NaN if the
    value is undefined, or if fewer than two patients have a positive, or fewer than two a negative. With only a few
    such patients the intervals are too narrow, so read them together with the number of positives.
    Raises ValueError for wrong shapes or labels, and for scores that are not finite.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; whole clusters are drawn as in
    Field and Welsh, J. R. Stat. Soc. B 69 (2007), 369-390.
    """
    measured, resampled = resample(labels, [scores], patients, num_resamples, seed)
    return _summarise(_has_enough(labels, patients), measured, resampled)


def bootstrap_differences(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, patients: Sequence, *, num_resamples: int, seed: int
) -> Areas:
    """AUROC and average precision of `after` minus those of `before`, with 95% percentile intervals.

    before, after: (images, findings) scores of the same images, such as those of FP32 and INT8. Both are measured on
    the same resamples, so that the variation they share cancels out. Values are -1..1. All else is as for
    bootstrap_areas, including the errors raised.
    """
    return differences_to(labels, before, [after], patients, num_resamples=num_resamples, seed=seed)[0]


def differences_to(
    labels: np.ndarray,
    before: np.ndarray,
    others: Sequence[np.ndarray],
    patients: Sequence,
    *,
    num_resamples: int,
    seed: int,
    precision: bool = True,
) -> list[Areas]:
    """bootstrap_differences of each of `others` to the same `before`, in less time than that many calls.

    precision: whether average precision is measured too, which takes most of the time; otherwise it is NaN.
    """
    measured, resampled = resample(labels, [before, *others], patients, num_resamples, seed, precision)
    enough = _has_enough(labels, patients)
    return [
        _summarise(enough, measured[place : place + 1] - measured[:1], resampled[place : place + 1] - resampled[:1])
        for place in range(1, len(measured))
    ]


def bootstrap_relabelled(
    before: np.ndarray, after: np.ndarray, scores: np.ndarray, patients: Sequence, *, num_resamples: int, seed: int
) -> tuple[Areas, Areas, Areas]:
    """AUROC and average precision by the labels `before`, by the labels `after`, and the second minus the first.

    before, after: (images, findings) labels of the same images, such as mined ones and a radiologist's. Both are
    measured on the same resamples, as in bootstrap_differences. A finding counts only if both define it, so that all
    means are over the same findings. The differences are -1..1. All else is as for bootstrap_areas, including the
    errors raised.
    """
    both = has_both_classes(before) & has_both_classes(after)
    labels = [np.where(both, values, np.nan) for values in (before, after)]
    enough = [_has_enough(values, patients) for values in labels]
    (first, first_drawn), (second, second_drawn) = (
        resample(values, [scores], patients, num_resamples, seed) for values in labels
    )
    return (
        _summarise(enough[0], first, first_drawn),
        _summarise(enough[1], second, second_drawn),
        _summarise(enough[0] & enough[1], second - first, second_drawn - first_drawn),
    )


def bootstrap_contrast(
    before: tuple[np.ndarray, np.ndarray, Sequence],
    after: tuple[np.ndarray, np.ndarray, Sequence],
    *,
    num_resamples: int,
    seed: int,
) -> Areas:
    """AUROC and average precision on one set of images minus those on another, whose patients are others.

    before, after: labels, scores and patients of each set, with the same findings, as for bootstrap_areas. Each set is
    resampled by itself, so the intervals are wider than those of bootstrap_differences. The mean is over the findings
    that both sets define. An interval is NaN unless both sets have enough patients. Values are -1..1. All else is as
    for bootstrap_areas, including the errors raised.
    """
    (first, first_drawn), (second, second_drawn) = (
        resample(labels, [scores], patients, num_resamples, seed + place)
        for place, (labels, scores, patients) in enumerate((before, after))
    )
    enough = _has_enough(before[0], before[2]) & _has_enough(after[0], after[2])
    return _summarise(enough, second - first, second_drawn - first_drawn)


def bootstrap_means(
    values: np.ndarray, patients: Sequence, *, num_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of each column over the images, with its 95% percentile interval over patients.

    values: (images, columns), finite, such as top-1 and top-5 hits. patients, num_resamples, seed: as for
    bootstrap_areas, which draws the same patients. Returns the mean, its lower and its upper bound, each (columns,)
    float64; the bounds are NaN with fewer than two patients.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    members = csr_array((np.ones(len(index)), (index, np.arange(len(index)))), shape=(len(names), len(index)))
    sums = members @ np.column_stack([values, np.ones(len(values))])
    blocks = blocks_of(num_resamples, len(names))
    drawn = np.hstack([sums.T @ patient_weights(len(names), block, seed) for block in blocks])
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn[:-1] / drawn[-1], [tail, 100 - tail], axis=1)
    unknown = np.full(len(low), np.nan)
    return np.mean(values, axis=0), *((low, high) if len(names) >= MIN_PATIENTS else (unknown, unknown))


def _has_enough(labels: np.ndarray, patients: Sequence) -> np.ndarray:
    """Which findings have enough patients with and without them for an interval, (findings,) bool."""
    patients = np.asarray(patients)
    enough = [all(len(np.unique(patients[column == value])) >= MIN_PATIENTS for value in (0, 1)) for column in labels.T]
    return np.array(enough, bool)


def _summarise(enough: np.ndarray, measured: np.ndarray, resampled: np.ndarray) -> Areas:
    """Intervals of one variant. measured, resampled: (1, 2, findings, ...), from resample."""
    return Areas(*(_intervals(*pair, enough) for pair in zip(measured[0], resampled[0], strict=True)))


def _intervals(measured: np.ndarray, resampled: np.ndarray, enough: np.ndarray) -> Intervals:
    """Intervals of one measure.

    measured: (findings, 1). resampled: (findings, resamples). enough: (findings,) bool, whether a finding has enough
    patients for an interval.
    """
    num_defined = (~np.isnan(resampled)).sum(axis=0)
    # If no finding is defined, this is 0 / 0.
    with np.errstate(invalid="ignore"):
        means = np.nansum(resampled, axis=0) / num_defined
    bounds, counts = [], []
    for draws, valid in zip([*resampled, means], [*enough, enough.any()], strict=True):
        defined = draws[~np.isnan(draws)]
        tail = 100 * (1 - CONFIDENCE) / 2
        bounds.append(np.percentile(defined, [tail, 100 - tail]) if valid and len(defined) else [np.nan, np.nan])
        counts.append(len(defined))
    low, high = np.array(bounds).T
    values = np.append(measured[:, 0], mean_over_findings(measured[:, 0]))
    return Intervals(values, low, high, np.array(counts))
