"""How good are scores: plain arrays in, numbers out; no torch, no files."""

import numpy as np
from sklearn.metrics import roc_auc_score


def auroc_per_finding(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each finding.

    labels: (images, findings) 1 present, 0 absent, NaN unknown: such cells are left out.
    scores: (images, findings), higher means more likely present.
    Returns (findings,) float64; NaN where a finding lacks positives or negatives: undefined, never 1.0.
    Raises ValueError when the shapes differ.
    """
    if labels.shape != scores.shape:
        raise ValueError(f"labels have shape {labels.shape} and scores {scores.shape}: expected the same")
    aurocs = np.full(labels.shape[1], np.nan)
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        truth = labels[known, column]
        if 0 < truth.sum() < len(truth):
            aurocs[column] = roc_auc_score(truth, scores[known, column])
    return aurocs


def mean_auroc(aurocs: np.ndarray) -> float:
    """Mean over the findings whose AUROC is defined; NaN when none is."""
    defined = aurocs[~np.isnan(aurocs)]
    return float(defined.mean()) if len(defined) else float("nan")
