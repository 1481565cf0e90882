"""How good scores are, measured on plain arrays; no torch, no files."""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve


def auroc_per_finding(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each finding: the chance that a positive scores above a negative; ties count half.

    labels: (images, findings) 1 present, 0 absent, NaN unknown; unknown cells are left out.
    scores: (images, findings), higher means more likely present; finite wherever the label is known.
    Returns (findings,) float64, 0..1; NaN (undefined, never 1.0) if a finding lacks positives or negatives.
    Raises ValueError as check_predictions does. Source: Hanley and McNeil, Radiology 143 (1982), 29-36.
    """
    return _per_finding(roc_auc_score, labels, scores)


def ranked_auroc_per_finding(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """auroc_per_finding by the sum of the positives' ranks, in a tenth of the time.

    Source: Hanley and McNeil, Radiology 143 (1982), 29-36: the AUROC is Wilcoxon's statistic.
    """

    def area(present: np.ndarray, known: np.ndarray) -> float:
        positives = int(present.sum())
        won = rankdata(known)[present == 1].sum() - positives * (positives + 1) / 2
        return won / (positives * (len(present) - positives))

    return _per_finding(area, labels, scores)


def average_precision_per_finding(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each finding: precision at every distinct score, weighted by the recall gained there.

    labels, scores: as for auroc_per_finding. Returns (findings,) float64, 0..1; scores without information get about
    the share of positives. NaN (undefined, never 1.0) if a finding lacks positives or negatives.
    Raises ValueError as check_predictions does. Source: Zhu, "Recall, precision and average precision" (2004); not
    interpolated, see Davis and Goadrich, ICML 2006.
    """
    return _per_finding(average_precision_score, labels, scores)


def _per_finding(measure, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    check_predictions(labels, scores)
    values = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(has_both_classes(labels)):
        values[column] = measure(*known_cells(labels, scores, column))
    return values


def mean_over_findings(values: np.ndarray) -> float:
    """Mean over the findings whose value is defined; NaN if none is. values: (findings,), NaN if undefined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def top_k_hits(labels: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Whether the class of each image is among its k highest scores, (images,) bool; in a tie it ranks last.

    labels: (images, classes), exactly one 1 in each row, all else 0. scores: the same shape, finite. Raises ValueError
    for anything else.
    """
    check_classes(labels, scores)
    own = scores[labels == 1][:, None]
    return (scores >= own).sum(axis=1) <= k


def check_classes(labels: np.ndarray, scores: np.ndarray) -> None:
    """Raises ValueError as check_predictions does, and unless each row of labels has exactly one 1, all else 0."""
    check_predictions(labels, scores)
    if not ((labels == 1).sum(axis=1) == 1).all() or np.isnan(labels).any():
        raise ValueError(
            "an image has no class, or more than one: expected exactly one 1 in each row of labels, all else 0"
        )


def roc_points(labels: np.ndarray, scores: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of one finding, from (0, 0) to (1, 1), without the points inside straight lines.

    labels, scores: as for auroc_per_finding; the finding needs positives and negatives. Returns two (points,) float64,
    0..1.
    """
    false_positives, true_positives, _ = roc_curve(*known_cells(labels, scores, column))
    return false_positives, true_positives


def precision_recall_points(labels: np.ndarray, scores: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of one finding at each distinct score, recall rising from 0.

    labels, scores: as for auroc_per_finding; the finding needs positives. Returns two (points,) float64, 0..1. Draw
    them as steps (`steps-pre`): the area below is then the average precision, which straight lines would overstate.
    """
    precision, recall, _ = precision_recall_curve(*known_cells(labels, scores, column))
    # The last point, recall 0 and precision 1, is a convention of scikit-learn and belongs to no threshold.
    return np.append(0, recall[-2::-1]), np.append(precision[-2], precision[-2::-1])


def has_both_classes(labels: np.ndarray) -> np.ndarray:
    """Which findings have a positive and a negative, (findings,) bool. labels: (images, findings) 1, 0 or NaN."""
    return (labels == 1).any(axis=0) & (labels == 0).any(axis=0)


def known_cells(labels: np.ndarray, scores: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (known,) bool and scores (known,) of the images whose label of one finding is known."""
    known = ~np.isnan(labels[:, column])
    return labels[known, column] == 1, scores[known, column]


def check_predictions(labels: np.ndarray, scores: np.ndarray) -> None:
    """Raises ValueError unless both are (images, findings), labels 1, 0 or NaN, and scores of known labels finite."""
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(
            f"labels have shape {labels.shape} and scores {scores.shape}: expected the same shape, (images, findings)"
        )
    known = ~np.isnan(labels)
    strange = known & (labels != 0) & (labels != 1)
    if strange.any():
        raise ValueError(f"a label is {labels[strange][0]}: expected 1 (present), 0 (absent) or NaN (unknown)")
    unusable = known & ~np.isfinite(scores)
    if unusable.any():
        row, column = np.argwhere(unusable)[0]
        raise ValueError(
            f"{unusable.sum()} scores of known labels are not finite, the first is {scores[row, column]} for image "
            f"{row}, finding {column}: set the finding's labels to NaN to leave it out"
        )
