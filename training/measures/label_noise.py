"""Labels that a model confidently contradicts, and how many labels are wrong: confident learning on plain arrays.

Source: Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", J. Artif. Intell.
Res. 70 (2021), 1373-1411. An image is confidently of a class if its probability is at least the mean probability of
the images with that label. Labels against which the model is confident are suspects; their share of all confident
images estimates the share of wrong labels. What the model itself gets wrong counts too, so a weak model's estimates are
too high. The limits count it less: they take only the films of which the model is surest. If wrong labels are as likely
on any film with the finding, and on any without it, then no larger share fits the ends of the ROC curve
(Blanchard, Lee and Scott, "Semi-supervised novelty detection", J. Mach. Learn. Res. 11 (2010), 2973-3009).
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from cleanlab.count import estimate_joint
from cleanlab.filter import find_label_issues

from training.measures.intervals import CONFIDENCE, MIN_PATIENTS
from training.measures.resampling import blocks_of, patient_weights

TOLERANCE = 1e-6
"""by how much cleanlab lets a probability miss its class's mean"""
RATES = ("wrong_present", "wrong_absent", "false_present", "missed")
"""share of the present labels that are wrong, and of the absent labels; share of the images without the finding that
are labelled present, and of those with it that are labelled absent"""
LIMITS = ("wrong_present_limit", "wrong_absent_limit")
"""largest shares of the present and of the absent labels that can be wrong, by the ends of the ROC curve; say the upper
ends of their intervals"""
MIN_SHARE = 0.5
"""share of the absent labels (of the present ones) that the low (the high) end of the ROC curve holds at least: ends
with fewer labels have smaller ratios by chance"""
NONE_SEEN = 3
"""what none among n leaves possible, times n, at 95% (Hanley and Lippman-Hand, JAMA 249 (1983), 1743-1745)"""


@dataclass(frozen=True)
class LabelNoise:
    """One finding's suspects and estimated rates."""

    suspects: np.ndarray
    """(suspects,) int: indices of the images whose label is probably wrong, the least likely label first"""
    values: np.ndarray
    """(6,) float64, 0..1: RATES and LIMITS, in their order"""
    low: np.ndarray
    """(6,) float64: 2.5th percentiles of the resamples; NaN with fewer than two patients"""
    high: np.ndarray
    """(6,) float64: 97.5th percentiles; a limit's is at least 3 by the number of patients with such a label"""


def measure_noise(
    present: np.ndarray, probabilities: np.ndarray, patients: Sequence, *, num_resamples: int, seed: int
) -> LabelNoise:
    """The suspects among one finding's labels, and the estimated rates with 95% percentile intervals over patients.

    present: (images,) bool, the given labels, of both values. probabilities: (images,) of the finding, 0..1, by a model
    that was not trained on these patients. patients: (images,) identifiers. num_resamples, seed: as for
    bootstrap_areas, which draws the same patients. Raises ValueError for labels of one value and probabilities outside
    of 0..1.
    """
    if present.all() or not present.any():
        raise ValueError(f"all {len(present)} labels are {bool(present.any())}: expected present and absent ones")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("a probability is not between 0 and 1: expected the sigmoid of calibrated logits")
    given, chances = present.astype(int), np.column_stack([1 - probabilities, probabilities]).astype(np.float64)
    # One process: its own ones would each get a copy of the labels, which costs more than it saves.
    suspects = find_label_issues(
        given, chances, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    order = np.argsort(chances[:, 1], kind="stable")
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    ranked = Ranked(present[order].astype(np.float64), chances[order, 1], index[order], len(names))
    cuts = limiting_cuts(ranked)
    joints, limits = resample(ranked, cuts, num_resamples, seed)
    values = [*rates_of(estimate_joint(given, chances)[..., None])[:, 0], *limits_at(ranked, cuts, np.ones(len(order)))]
    tail = 100 * (1 - CONFIDENCE) / 2
    ends = np.full((2, len(values)), np.nan)
    for place, draws in enumerate([*rates_of(joints), *limits]):
        defined = draws[~np.isnan(draws)]
        if len(names) >= MIN_PATIENTS and len(defined):
            ends[:, place] = np.percentile(defined, [tail, 100 - tail])
    for place, value in enumerate((True, False), start=len(RATES)):
        # A tail without a label of this value, and so each of its resamples, says zero.
        least = NONE_SEEN / len(np.unique(index[present == value]))
        ends[1, place] = min(max(ends[1, place], least), 1)
    return LabelNoise(np.asarray(suspects, int), np.array(values), *ends)


def rates_of(joint: np.ndarray) -> np.ndarray:
    """The RATES of each joint distribution, (4, draws) float64; NaN for a share of nothing.

    joint: (2, 2, draws), given label and true label, 0 absent and 1 present; any scale.
    """
    parts = np.stack([joint[1, 0], joint[0, 1], joint[1, 0], joint[0, 1]])
    wholes = np.stack([joint[1].sum(axis=0), joint[0].sum(axis=0), joint[:, 0].sum(axis=0), joint[:, 1].sum(axis=0)])
    return np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)


@dataclass(frozen=True)
class Ranked:
    """One finding's images, the least probable first: those confidently absent begin, those confidently present end."""

    present: np.ndarray
    """(images,) float64: 1 present, 0 absent"""
    probabilities: np.ndarray
    """(images,) float64, rising"""
    patients: np.ndarray
    """(images,) 0..num_patients-1"""
    num_patients: int


def resample(ranked: Ranked, cuts: tuple[int, int], num_resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """cleanlab's estimate of the joint distribution, and the limits, on resamples of patients.

    Returns (2, 2, num_resamples) and (2, num_resamples) float64, NaN for a resample without one of the two labels.
    """
    joints, limits = np.full((2, 2, num_resamples), np.nan), np.full((2, num_resamples), np.nan)

    def fill(block: range) -> None:
        # A resample's weights side by side in memory are read three times as fast.
        weights = np.ascontiguousarray(patient_weights(ranked.num_patients, block, seed).T)
        for row, number in enumerate(block):
            times = weights[row][ranked.patients]
            if 0 < times @ ranked.present < times.sum():
                joints[..., number], limits[:, number] = joint_of(ranked, times), limits_at(ranked, cuts, times)

    # NumPy releases the GIL.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(fill, blocks_of(num_resamples, ranked.num_patients)))
    return joints, limits


def joint_of(ranked: Ranked, times: np.ndarray) -> np.ndarray:
    """The calibrated confident joint, (2, 2), as cleanlab counts it. times: (images,), how often each image counts."""
    chances, positive = ranked.probabilities, times * ranked.present
    num_present, num_all = positive.sum(), times.sum()
    mean_present = positive @ chances / num_present
    mean_absent = 1 - (times @ chances - positive @ chances) / (num_all - num_present)
    # An image that is confidently of both classes is of the more probable one, and absent at 0.5, as argmax has it.
    starts = np.searchsorted(chances, mean_present - TOLERANCE)
    ends = np.searchsorted(chances, 1 - mean_absent + TOLERANCE, side="right")
    middle = np.searchsorted(chances, 0.5, side="right")
    if ends > starts:
        starts, ends = max(starts, min(middle, ends)), min(ends, max(middle, starts))
    counts = np.empty((2, 2))
    for true, part in ((0, slice(None, ends)), (1, slice(starts, None))):
        counts[1, true] = positive[part].sum()
        counts[0, true] = times[part].sum() - counts[1, true]
    np.fill_diagonal(counts, counts.diagonal().clip(min=1))
    return counts / counts.sum(axis=1, keepdims=True) * np.array([[num_all - num_present], [num_present]]) / num_all


def limiting_cuts(ranked: Ranked) -> tuple[int, int]:
    """The numbers of images below the two cuts of the ranking that give the smallest limits, see limits_at.

    They are chosen once: the smallest ratio of each resample would be too small.
    """
    # Cuts lie between different probabilities only. The last one is behind all images.
    ends = np.append(np.flatnonzero(np.diff(ranked.probabilities) > 0) + 1, len(ranked.probabilities))
    present, absent = (np.cumsum(part)[ends - 1] / part.sum() for part in (ranked.present, 1 - ranked.present))
    low, high = absent >= MIN_SHARE, 1 - present >= MIN_SHARE
    of_present = np.divide(present, absent, out=np.full(len(ends), np.inf), where=low)
    of_absent = np.divide(1 - absent, 1 - present, out=np.full(len(ends), np.inf), where=high)
    return int(ends[of_present.argmin()]), int(ends[of_absent.argmin()]) if high.any() else 0


def limits_at(ranked: Ranked, cuts: tuple[int, int], times: np.ndarray) -> np.ndarray:
    """LIMITS, (2,) float64, 0..1; NaN for a resample without a label at an end. times: as in joint_of.

    Were all present labels right, none of their images would be among those that look most like absent ones; if a share
    of them is wrong, at least that share of what is usual there is found there.
    """
    low, high = cuts
    positive = times * ranked.present
    present, absent = positive.sum(), times.sum() - positive.sum()
    below, above = positive[:low].sum() / present, positive[high:].sum() / present
    usual_below = (times[:low].sum() - positive[:low].sum()) / absent
    usual_above = (times[high:].sum() - positive[high:].sum()) / absent
    parts, wholes = np.array([below, usual_above]), np.array([usual_below, above])
    return np.minimum(np.divide(parts, wholes, out=np.full(2, np.nan), where=wholes > 0), 1)
