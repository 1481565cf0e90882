"""Pictures of a training; each names its split and its data."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_curve

from conf.workspace import atomic_path


def draw_history(path: Path, losses: list[float], epochs: list[dict[str, float]], data: str) -> None:
    """Training loss per step and validation AUROC per epoch.

    losses: one per step. epochs: per epoch `train_loss`, `val_loss`, `val_auroc_mean`. data: which table, for the
    title.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    steps_per_epoch = len(losses) / len(epochs)
    ends = [(index + 1) * steps_per_epoch for index in range(len(epochs))]
    left.plot(range(1, len(losses) + 1), losses, color="0.8", linewidth=0.8, label="training, each step")
    left.plot(ends, [epoch["train_loss"] for epoch in epochs], "o-", label="training, mean of the epoch")
    left.plot(ends, [epoch["val_loss"] for epoch in epochs], "s-", label="validation")
    left.set(xlabel="step", ylabel="weighted binary cross-entropy", title=f"Loss ({data})")
    left.legend(frameon=False)
    numbers = range(1, len(epochs) + 1)
    right.plot(numbers, [epoch["val_auroc_mean"] for epoch in epochs], "s-", color="C1")
    right.set(xlabel="epoch", ylabel="mean AUROC over the findings", title=f"Validation split ({data})")
    right.set_xticks(list(numbers)[:: max(1, len(epochs) // 12)])
    _save(figure, path)


def draw_roc(path: Path, labels: np.ndarray, scores: np.ndarray, findings: list[str], title: str) -> None:
    """ROC curve of each finding that has positives and negatives.

    labels: (images, findings) 1, 0 or NaN; scores: the same shape. title names the split and the data.
    """
    figure, axes = plt.subplots(figsize=(6.5, 6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    colours = plt.get_cmap("tab20")
    for column, finding in enumerate(findings):
        known = ~np.isnan(labels[:, column])
        truth = labels[known, column]
        if not 0 < truth.sum() < len(truth):
            continue
        false_positives, true_positives, _ = roc_curve(truth, scores[known, column])
        area = np.trapz(true_positives, false_positives)
        axes.plot(
            false_positives, true_positives, color=colours(column), label=f"{finding} {area:.3f} (n={int(truth.sum())})"
        )
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title, aspect="equal")
    axes.legend(frameon=False, fontsize=8, title="AUROC (positives)", loc="lower right")
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
