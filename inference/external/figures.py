"""Figures of an external test; each names the model, the films and their number."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from training.measures.calibration import bin_reliability
from training.record.evaluation import NUM_BINS
from training.record.figures import COLOURS, PLAIN_TEXT, draw_reliability, save_figure

HERE, OWN = COLOURS[1], COLOURS[0]
OFFSET = 0.16


@PLAIN_TEXT
def draw_areas(path: Path, report: dict, title: str) -> None:
    """AUROC of each shared finding on these films and on the model's own test split, with intervals by patient."""
    findings = [*report["findings"]["shared"], "mean"]
    figure, axes = plt.subplots(figsize=(8, 1.8 + 0.42 * len(findings)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    series = [("these films", report["auroc"], HERE, OFFSET)]
    if "auroc" in report["own_test"]:
        series.insert(0, ("the model's own test split", report["own_test"]["auroc"], OWN, -OFFSET))
    for name, areas, colour, offset in series:
        ends = np.array(
            [[areas[finding][key] for key in ("value", "low", "high")] for finding in findings], dtype=float
        )
        places = np.arange(len(findings)) + offset
        axes.hlines(places, ends[:, 1], ends[:, 2], color=colour, linewidth=2)
        axes.plot(ends[:, 0], places, "o", color=colour, label=name)
    axes.axvline(0.5, color="0.7", linewidth=1)
    axes.axhline(len(findings) - 1.5, color="0.85", linewidth=1)
    counts = [report["positives"].get(finding) for finding in findings]
    labels = [name if count is None else f"{name} (n={count:,})" for name, count in zip(findings, counts, strict=True)]
    axes.set_yticks(range(len(findings)), labels)
    axes.set_ylim(len(findings) - 0.4, -0.6)
    axes.set_xlabel("AUROC, 95% interval by patient (0.5 is chance; no dot: undefined)\nn: films with the finding here")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, frameon=False)
    save_figure(figure, path)


def draw_calibration(
    path: Path, labels: np.ndarray, probabilities: np.ndarray, findings: list[str], title: str
) -> None:
    """Observed against predicted frequency on these films, a panel per finding with known labels, with the ECE."""
    known = np.flatnonzero(~np.isnan(labels).all(axis=0))
    reliability = bin_reliability(labels[:, known], probabilities[:, known], NUM_BINS)
    draw_reliability(path, {"these films": reliability}, [findings[place] for place in known], title)
