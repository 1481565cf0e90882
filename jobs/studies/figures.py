"""Figures of a comparison; each names the films."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from jobs.studies.comparison import MEAN, Comparison
from training.record.figures import COLOURS, PLAIN_TEXT, save_figure

MARKS = ("o", "s", "^", "D", "v", "P", "X")


@PLAIN_TEXT
def draw_differences(path: Path, comparison: Comparison, title: str) -> None:
    """Mean AUROC of each run, and its paired difference to the reference, with intervals by patient."""
    names = [run.name for run in comparison.runs]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 1.8 + 0.4 * len(names)), sharey=True, layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axes, series, middle in (
        (left, [run.auroc[MEAN] for run in comparison.runs], 0.5),
        (right, [difference[MEAN] for difference in comparison.differences], 0),
    ):
        ends = np.array([[one[key] for key in ("value", "low", "high")] for one in series], float)
        places = np.arange(len(names))
        axes.hlines(places, ends[:, 1], ends[:, 2], color=COLOURS[0], linewidth=2)
        axes.plot(ends[:, 0], places, "o", color=COLOURS[0])
        axes.axvline(middle, color="0.7", linewidth=1)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xlabel("mean AUROC over the findings (0.5 is chance)")
    right.set_xlabel(f"difference to {comparison.reference.name}, paired")
    save_figure(figure, path)


@PLAIN_TEXT
def draw_findings(path: Path, comparison: Comparison, title: str) -> None:
    """AUROC of each finding, a mark per run."""
    findings = [*comparison.findings, MEAN]
    figure, axes = plt.subplots(figsize=(9, 1.8 + 0.42 * len(findings)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    step = 0.6 / max(1, len(comparison.runs) - 1)
    for number, run in enumerate(comparison.runs):
        ends = np.array([[run.auroc[finding][key] for key in ("value", "low", "high")] for finding in findings], float)
        places = np.arange(len(findings)) + (number * step - 0.3 if len(comparison.runs) > 1 else 0)
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number // len(COLOURS) % len(MARKS)]
        axes.hlines(places, ends[:, 1], ends[:, 2], color=colour, linewidth=1)
        axes.plot(ends[:, 0], places, mark, color=colour, markersize=4, label=run.name)
    axes.axvline(0.5, color="0.7", linewidth=1)
    axes.axhline(len(findings) - 1.5, color="0.85", linewidth=1)
    axes.set_yticks(range(len(findings)), findings)
    axes.set_ylim(len(findings) - 0.4, -0.6)
    axes.set_xlabel("AUROC, 95% interval by patient (0.5 is chance; no mark: undefined)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    save_figure(figure, path)
