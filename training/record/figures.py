"""Figures of a training and of the quality of its predictions; each names its split and its data."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from conf.words import counted
from conf.writing import atomic_path
from training.measures.calibration import Reliability
from training.measures.intervals import Areas, Intervals
from training.measures.metrics import (
    auroc_per_finding,
    has_both_classes,
    mean_over_findings,
    precision_recall_points,
    roc_points,
)
from training.measures.subgroups import MEAN

# A dollar sign in a name is a dollar sign; it does not begin a formula.
PLAIN_TEXT = plt.rc_context({"text.parse_math": False})
# Okabe and Ito's palette, which colour-blind readers can tell apart; line styles distinguish further findings.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
LEGEND_ROW_INCHES = 0.18
"""of 8 point letters"""
LIMITS = (-0.03, 1.03)
"""of an axis of shares"""
MAX_NAME_LENGTH = 24
"""most characters of a finding's name in a figure"""


@PLAIN_TEXT
def draw_history(path: Path, losses: list[float], epochs: list[dict[str, float]], loss: str, data: str) -> None:
    """Training loss per step and validation AUROC per epoch.

    losses: one per step. epochs: per epoch `train_loss`, `val_loss`, `val_auroc_mean`. loss: its name. data: which
    table, for the title.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    steps_per_epoch = len(losses) / len(epochs)
    ends = [(index + 1) * steps_per_epoch for index in range(len(epochs))]
    left.plot(range(1, len(losses) + 1), losses, color="0.8", linewidth=0.8, label="training, each step")
    left.plot(ends, [epoch["train_loss"] for epoch in epochs], "o-", label="training, mean of the epoch")
    left.plot(ends, [epoch["val_loss"] for epoch in epochs], "s-", label="validation")
    left.set(xlabel="step", ylabel=loss, title=f"Loss ({data})")
    left.legend(frameon=False)
    numbers = range(1, len(epochs) + 1)
    right.plot(numbers, [epoch["val_auroc_mean"] for epoch in epochs], "s-", color="C1")
    right.set(xlabel="epoch", ylabel="mean AUROC over the findings", title=f"Validation split ({data})")
    right.set_xticks(list(numbers)[:: max(1, len(epochs) // 12)])
    save_figure(figure, path)


@PLAIN_TEXT
def draw_roc(path: Path, labels: np.ndarray, scores: np.ndarray, findings: list[str], title: str) -> None:
    """ROC curve of each finding that has positives and negatives.

    labels: (images, findings) 1, 0 or NaN; scores: the same shape. title names the split and the data.
    """
    figure, axes = plt.subplots(figsize=(8.3, max(5.5, 1 + LEGEND_ROW_INCHES * len(findings))), layout="constrained")
    figure.suptitle(title)
    texts = [f"{value:.3f}" for value in auroc_per_finding(labels, scores)]
    _draw_roc(axes, labels, scores, findings, texts)
    entries = axes.get_legend_handles_labels()
    axes.legend(*entries, **_legend("AUROC (positives)"), loc="upper left", bbox_to_anchor=(1.02, 1))
    save_figure(figure, path)


@PLAIN_TEXT
def draw_curves(
    path: Path, labels: np.ndarray, scores: np.ndarray, findings: list[str], areas: Areas, title: str
) -> None:
    """ROC and precision-recall curve of each finding that has positives and negatives, side by side.

    labels: (images, findings) 1, 0 or NaN. scores: the same shape. areas: for the legends, the AUROC and average
    precision with their intervals and the number of positives. title names the split and the data.
    """
    legend_inches = LEGEND_ROW_INCHES * (int(has_both_classes(labels).sum()) + 2)
    figure, (curves, legends) = plt.subplots(
        2, 2, figsize=(11, 6 + legend_inches), height_ratios=(6, legend_inches), layout="constrained"
    )
    figure.suptitle(title)
    roc, precision_recall = curves
    _draw_roc(roc, labels, scores, findings, _with_bounds(areas.auroc))
    for column, style in _drawn(labels, findings, _with_bounds(areas.average_precision)):
        precision_recall.step(*precision_recall_points(labels, scores, column), where="pre", **style)
    precision_recall.set(xlabel="recall", ylabel="precision", xlim=LIMITS, ylim=LIMITS, aspect="equal")
    named = (("AUROC", areas.auroc), ("average precision", areas.average_precision))
    for axes, below, (name, intervals) in zip(curves, legends, named, strict=True):
        heading = f"{name} [95% interval over patients] (positives); mean {_with_bounds(intervals)[-1]}"
        below.legend(*axes.get_legend_handles_labels(), **_legend(heading), loc="upper center")
        below.set_axis_off()
    save_figure(figure, path)


@PLAIN_TEXT
def draw_reliability(path: Path, parts: dict[str, Reliability], findings: list[str], title: str) -> None:
    """Observed against predicted frequency, a panel per finding, with the ECE.

    parts: name -> reliability, one or two, the newer one last. The area of a dot grows with the bin's share of the
    images. title names the split and the data.
    """
    columns = min(4, len(findings))
    rows = -(-len(findings) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(max(7.5, 3 * columns), 1 + 3 * rows),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    styles = (("0.6", "s"), (COLOURS[0], "o"))[-len(parts) :]
    errors = [part.expected_calibration_error for part in parts.values()]
    means = " to ".join(f"{mean_over_findings(error):.3f}" for error in errors)
    figure.suptitle(f"{title}\nmean expected calibration error (ECE) {means}")
    for column, (axes, finding) in enumerate(zip(grid.flat, findings, strict=False)):
        axes.plot([0, 1], [0, 1], color="0.85", linewidth=1)
        for (name, part), (colour, marker) in zip(parts.items(), styles, strict=True):
            filled = part.num_images[column] > 0
            counts, x, y = (array[column, filled] for array in (part.num_images, part.predicted, part.observed))
            axes.plot(x, y, color=colour, linewidth=1)
            axes.scatter(x, y, 8 + 60 * counts / max(1, counts.sum()), color=colour, marker=marker, label=name)
        change = " to ".join("undefined" if np.isnan(error[column]) else f"{error[column]:.3f}" for error in errors)
        axes.set_title(f"{_short(finding)}\nECE {change}", fontsize=9)
        axes.set(xlim=LIMITS, ylim=LIMITS, aspect="equal")
    for axes in grid.flat[len(findings) :]:
        axes.set_axis_off()
    figure.supxlabel("predicted probability")
    figure.supylabel("observed share of positives")
    figure.legend(
        *grid.flat[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8, frameon=False
    )
    save_figure(figure, path)


@PLAIN_TEXT
def draw_subgroups(path: Path, table: pd.DataFrame, title: str) -> None:
    """Mean AUROC of each group with its interval, groups of an attribute together.

    table: from subgroup_table. title names the split and the data. An undefined AUROC has no dot. Beside each group
    stands over how many findings its mean is: with fewer of them it does not compare with the others.
    """
    defined = table[table["finding"] != MEAN].groupby(["attribute", "group"])["auroc"].count().rename("findings")
    means = table[table["finding"] == MEAN].join(defined, on=["attribute", "group"]).reset_index(drop=True)
    attributes = list(means["attribute"].unique())
    places = means.index + 0.8 * means["attribute"].map(attributes.index)
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.32 * (places.max() + 1)), layout="constrained")
    figure.suptitle(title)
    colours = [COLOURS[attributes.index(attribute) % len(COLOURS)] for attribute in means["attribute"]]
    axes.hlines(places, means["low"], means["high"], color=colours, linewidth=2)
    axes.scatter(means["auroc"], places, color=colours, zorder=3)
    axes.axvline(0.5, color="0.8", linewidth=1)
    axes.set_yticks(places, [f"{row.attribute} {row.group}" for row in means.itertuples()])
    axes.set_ylim(places.max() + 0.7, -0.7)
    axes.set_xlabel("mean AUROC over the findings, 95% interval over patients (0.5 is chance)")
    counts = axes.secondary_yaxis("right")
    counts.set_yticks(
        places,
        [
            ", ".join(
                [counted(row.images, "image"), counted(row.patients, "patient"), counted(row.findings, "finding")]
            )
            for row in means.itertuples()
        ],
    )
    counts.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(False)
    counts.spines["right"].set_visible(False)
    save_figure(figure, path)


def _draw_roc(axes: plt.Axes, labels: np.ndarray, scores: np.ndarray, findings: list[str], texts: list[str]) -> None:
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for column, style in _drawn(labels, findings, texts):
        axes.plot(*roc_points(labels, scores, column), **style)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=LIMITS, ylim=LIMITS, aspect="equal")


def _drawn(labels: np.ndarray, findings: list[str], texts: list[str]) -> Iterator[tuple[int, dict]]:
    """For each finding with positives and negatives: its column, and the colour, style and legend entry of its line."""
    for column in np.flatnonzero(has_both_classes(labels)):
        positives = int((labels[:, column] == 1).sum())
        yield (
            column,
            {
                "color": COLOURS[column % len(COLOURS)],
                "linestyle": STYLES[column // len(COLOURS) % len(STYLES)],
                "linewidth": 1.3,
                "label": f"{_short(findings[column])} {texts[column]} (n={positives:,})",
            },
        )


def _with_bounds(intervals: Intervals) -> list[str]:
    """Text such as `0.812 [0.790, 0.834]` for each finding and the mean."""
    cells = zip(intervals.values, intervals.low, intervals.high, strict=True)
    return [f"{value:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]") for value, low, high in cells]


def _legend(title: str) -> dict:
    return {"frameon": False, "fontsize": 8, "title": title, "title_fontsize": 8, "handlelength": 3, "borderaxespad": 0}


def _short(name: str) -> str:
    # matplotlib leaves a name that begins with an underscore out of a legend.
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"


def save_figure(figure: plt.Figure, path: Path) -> None:
    """Writes the figure, atomically, and closes it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
