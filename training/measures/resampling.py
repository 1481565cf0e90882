"""Draws patients again and again, and measures AUROC and average precision in each draw, on plain arrays.

A resample is never materialised: each finding is ranked once, and a resample only says how often each patient counts.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import csr_array

from training.measures.metrics import check_predictions, has_both_classes, known_cells

EXACT = 2**23
"""number of images below which float32, which is twice as fast, counts images and half images exactly"""
BLOCK_CELLS = 2**20
"""numbers in one array of a thread, about 8 MB"""


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


def resample(
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
