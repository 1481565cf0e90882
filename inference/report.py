"""What was measured, as one dict (report.json), as a table on the console and as a figure."""

from dataclasses import asdict
from math import isnan
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from rich.table import Table

from conf.workspace import atomic_path
from inference.evaluate import Speed
from inference.gate import Decision
from training.metrics import mean_over_findings

# Order and titles of the variants wherever they are shown.
TITLES = {"baseline": "thumbnail LR", "torch": "torch", "fp32": "FP32", "int8": "INT8"}
# Of Okabe and Ito's palette, told apart by colour-blind readers.
COLOURS = {"baseline": "0.75", "torch": "#56B4E9", "fp32": "#0072B2", "int8": "#D55E00"}
CHANCE = 0.5


def describe(
    findings: list[str], data: dict, aurocs: dict[str, np.ndarray], speeds: dict[str, Speed], decision: Decision
) -> dict:
    """The report, ready for JSON: undefined numbers are null.

    data: what the AUROCs were measured on: `split`, `delta_version`, `images`, `positives` per finding.
    aurocs: variant -> (findings,), NaN undefined. speeds: variant -> Speed; the baseline has none.
    """
    test_auroc = {
        name: {
            "mean": _or_none(mean_over_findings(values)),
            "per_finding": {finding: _or_none(value) for finding, value in zip(findings, values, strict=True)},
        }
        for name, values in aurocs.items()
    }
    return {
        "data": data,
        "test_auroc": test_auroc,
        "speed": {name: asdict(speed) for name, speed in speeds.items()},
        "gate": decision.to_dict(),
    }


def _or_none(value: float) -> float | None:
    return None if isnan(value) else float(value)


def data_title(data: dict) -> str:
    """`test split, Delta version 3, 250 images`."""
    return f"{data['split']} split, Delta version {data['delta_version']}, {data['images']} images"


def auroc_table(report: dict) -> Table:
    """AUROC per finding and variant, the mean last; an undefined one is a dash."""
    table = Table(title=f"AUROC ({data_title(report['data'])})", title_justify="left")
    table.add_column("finding")
    for title in ("positives", *TITLES.values()):
        table.add_column(title, justify="right")
    variants = [report["test_auroc"][name] for name in TITLES]
    for finding, positives in report["data"]["positives"].items():
        table.add_row(finding, str(positives), *[_cell(variant["per_finding"][finding]) for variant in variants])
    table.add_section()
    table.add_row("mean", "", *[_cell(variant["mean"]) for variant in variants], style="bold")
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def speed_lines(report: dict) -> list[str]:
    """One line per variant: latency of one image, throughput."""
    return [
        f"{TITLES[name]:>6}: {speed['latency_ms']:.1f} ms per image (95th percentile {speed['latency_p95_ms']:.1f}), "
        f"{speed['images_per_s']:.1f} images/s"
        for name, speed in report["speed"].items()
    ]


def draw_report(report: dict, path: Path) -> None:
    """AUROC per finding as bars from 0.5, the AUROC of chance, and the latencies beside them."""
    findings = [*report["data"]["positives"], "mean"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 1.5 + 0.5 * len(findings)), width_ratios=(3, 1), layout="constrained"
    )
    figure.suptitle(f"CheXScale, {data_title(report['data'])}")
    height = 0.8 / len(TITLES)
    for row, (name, title) in enumerate(TITLES.items()):
        variant = report["test_auroc"][name]
        values = [variant["per_finding"][finding] for finding in findings[:-1]] + [variant["mean"]]
        # An undefined AUROC has no bar.
        lengths = [0 if value is None else value - CHANCE for value in values]
        places = np.arange(len(findings)) + (row - (len(TITLES) - 1) / 2) * height
        left.barh(places, lengths, height, left=CHANCE, label=title, color=COLOURS[name])
    left.axvline(CHANCE, color="0.4", linewidth=1)
    left.axhline(len(findings) - 1.5, color="0.8", linewidth=1)
    left.set_yticks(range(len(findings)), findings)
    left.set(xlabel="AUROC (0.5 is chance; no bar: undefined)", ylim=(len(findings) - 0.4, -0.6), xlim=(None, 1.0))
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(TITLES), frameon=False)
    _draw_latencies(right, report)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def _draw_latencies(axes: plt.Axes, report: dict) -> None:
    speeds, machine = report["speed"], report["machine"]
    names = list(speeds)
    bars = axes.bar(
        [TITLES[name] for name in names],
        [speeds[name]["latency_ms"] for name in names],
        color=[COLOURS[name] for name in names],
    )
    axes.bar_label(bars, fmt="%.1f")
    axes.margins(y=0.1)
    axes.set(ylabel="milliseconds for one image, median")
    axes.set_title(f"Latency\n{machine['cpu']},\n{machine['cores']} cores", fontsize=10)
