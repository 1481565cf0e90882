"""How certain a measured AUROC or average precision is: a bootstrap over patients, on plain arrays.

Images of one patient resemble each other, so the bootstrap draws patients, not images. A resample is never
materialised: each finding is ranked once, and a resample only says how often each patient counts.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from training.measures.metrics import check_predictions, has_both_classes, known_cells, mean_over_findings

CONFIDENCE = 0.95
MIN_PATIENTS = 2
"""patients with positives, and with negatives, that an interval needs: resampling a single one shows no variation"""
EXACT = 2**23
"""number of images below which float32, which is twice as fast, counts images and half images exactly"""
BLOCK_CELLS = 2**20
"""numbers in one array of a thread, about 8 MB"""


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
    measured, resampled = _resample(labels, [scores], patients, num_resamples, seed)
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
    measured, resampled = _resample(labels, [before, *others], patients, num_resamples, seed, precision)
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
        _resample(values, [scores], patients, num_resamples, seed) for values in labels
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
        _resample(labels, [scores], patients, num_resamples, seed + place)
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


def patient_weights(num_patients: int, resamples: range, seed: int) -> np.ndarray:
    """How often each patient is drawn in each resample, (patients, resamples) float64.

    Each column sums to num_patients. A resample depends only on its number and the seed, so that blocks and threads do
    not change it.
    """
    weights = np.empty((num_patients, len(resamples)))
    for column, resample in enumerate(resamples):
        drawn = np.random.default_rng([seed, resample]).integers(num_patients, size=num_patients)
        weights[:, column] = np.bincount(drawn, minlength=num_patients)
    return weights


def rank_finding(present: np.ndarray, scores: np.ndarray, patients: np.ndarray, num_patients: int) -> csr_array:
    """Counts a finding's images by place in the ranking and by patient: sparse (3 * places, num_patients) float32.

    present: (images,) bool. scores: (images,) finite. patients: (images,) 0..num_patients-1.
    A place is a distinct score of at least one positive, counted from the highest. Its three rows count the negatives
    between the place above and this one, the negatives with exactly this score, and the positives. One more place at
    the end has the negatives below.
    """
    levels, level = np.unique(-scores.astype(np.float64), return_inverse=True)
    is_place = np.bincount(level[present], minlength=len(levels)) > 0
    place = (np.cumsum(is_place) - is_place)[level]
    rows = 3 * place + np.where(present, 2, is_place[level])
    shape = (3 * (int(is_place.sum()) + 1), num_patients)
    return csr_array((np.ones(len(rows), np.float32), (rows, patients)), shape=shape)


def weighted_areas(ranking: csr_array, weights: np.ndarray, *, precision: bool = True) -> np.ndarray:
    """AUROC and average precision of each resample, (2, resamples) float64; NaN without positives or negatives.

    ranking: from rank_finding. weights: (patients, resamples), how often each patient counts. precision: whether the
    average precision, which takes most of the time, is computed; otherwise it is NaN.
    """
    most = weights.max(initial=0) * ranking.sum(dtype=np.float64)
    exact = np.float32 if most < EXACT else np.float64
    counts = (ranking @ weights.astype(exact)).reshape(-1, 3, weights.shape[1])
    tied, positives = counts[:, 1], counts[:, 2]
    negatives_so_far = np.cumsum(counts[:, 0] + tied, axis=0)
    num_negatives, num_positives = negatives_so_far[-1].astype(np.float64), positives.sum(axis=0, dtype=np.float64)
    beaten = negatives_so_far[-1] - negatives_so_far + tied / 2
    sums = np.full((2, weights.shape[1]), np.nan)
    sums[0] = np.einsum("pr,pr->r", positives, beaten, dtype=np.float64)
    if precision:
        positives_so_far = np.cumsum(positives, axis=0, dtype=np.float64)
        # If a resample has no image at or above a place, it has no positive there, and any precision will do.
        found = positives_so_far / np.maximum(positives_so_far + negatives_so_far, 1)
        sums[1] = np.einsum("pr,pr->r", positives, found, dtype=np.float64)
    pairs = np.stack([num_positives * num_negatives, num_positives])
    return np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=pairs[0] > 0)


def _resample(
    labels: np.ndarray,
    variants: list[np.ndarray],
    patients: Sequence,
    num_resamples: int,
    seed: int,
    precision: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of each variant, on the images themselves and on each resample (the last axis).

    Returns (variants, 2, findings, 1) and (variants, 2, findings, num_resamples), AUROC first.
    """
    for scores in variants:
        check_predictions(labels, scores)
    if len(patients) != len(labels):
        raise ValueError(f"{len(patients)} patients for {len(labels)} images: expected one patient per image")
    if num_resamples < 1 or seed < 0:
        raise ValueError(
            f"num_resamples is {num_resamples} and seed {seed}: expected at least 1 resample and a seed of at least 0"
        )
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    rankings = {
        (variant, column): rank_finding(
            *known_cells(labels, scores, column), index[~np.isnan(labels[:, column])], len(names)
        )
        for column in np.flatnonzero(has_both_classes(labels))
        for variant, scores in enumerate(variants)
    }

    def measure(weights: np.ndarray) -> np.ndarray:
        measured = np.full((len(variants), 2, labels.shape[1], weights.shape[1]), np.nan)
        for (variant, column), ranking in rankings.items():
            measured[variant, :, column] = weighted_areas(ranking, weights, precision=precision)
        return measured

    most = max([len(names), *(ranking.shape[0] for ranking in rankings.values())], default=1)
    blocks = blocks_of(num_resamples, most)
    # Nearly all the time goes into sparse products and sums, which release the GIL.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        parts = list(threads.map(lambda block: measure(patient_weights(len(names), block, seed)), blocks))
    return measure(np.ones((len(names), 1))), np.concatenate(parts, axis=-1)


def blocks_of(num_resamples: int, rows: int) -> list[range]:
    """Groups of resamples to compute together, so that an array of `rows` numbers for each of them stays small."""
    size = min(128, max(1, BLOCK_CELLS // rows))
    return [range(num_resamples)[start : start + size] for start in range(0, num_resamples, size)]


def _has_enough(labels: np.ndarray, patients: Sequence) -> np.ndarray:
    """Which findings have enough patients with and without them for an interval, (findings,) bool."""
    patients = np.asarray(patients)
    enough = [all(len(np.unique(patients[column == value])) >= MIN_PATIENTS for value in (0, 1)) for column in labels.T]
    return np.array(enough, bool)


def _summarise(enough: np.ndarray, measured: np.ndarray, resampled: np.ndarray) -> Areas:
    """Intervals of one variant. measured, resampled: (1, 2, findings, ...), from _resample."""
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
