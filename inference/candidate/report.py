"""The measurements as one dict (report.json), as tables on the console and as a figure."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from conf.words import RESEARCH_USE, counted
from conf.writing import atomic_path
from inference.candidate.gate import CHANCE, Decision
from inference.candidate.measuring.evaluate import Scored, auroc_differences, auroc_intervals
from inference.candidate.measuring.localisation import summarise
from inference.model.card_text import share_cells
from inference.model.ten_crop import SUFFIX
from training.measures.cells import value_cell
from training.record.evaluation import describe_intervals
from training.record.figures import PLAIN_TEXT

# Order and titles of the variants in tables and figures.
TITLES = {
    "baseline": "thumbnail LR",
    "torch": "torch",
    "fp32": "FP32",
    "fp16": "FP16",
    "onnx": "ONNX",
    "int8": "INT8",
}
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {
    "baseline": "0.75",
    "torch": "#56B4E9",
    "fp32": "#0072B2",
    "fp16": "#009E73",
    "onnx": "#CC79A7",
    "int8": "#D55E00",
}
# Variants that are shown per finding; FP16 and ONNX give FP32's AUROC to the third digit.
COMPARED = ("baseline", "torch", "fp32", "int8")


def describe(
    findings: list[str], scored: Scored, decision: Decision, speeds: dict[str, dict[str, float]], seed: int
) -> dict:
    """The report, ready for JSON, where undefined numbers are null.

    scored: the test split. speeds: variant -> what was measured of it; the baseline has none. Every AUROC is finding,
    and `mean`, -> value, low, high: 95% intervals by patient.
    """
    positives = np.nansum(scored.labels, axis=0).astype(int).tolist()
    return {
        "note": RESEARCH_USE,
        "data": {
            "images": len(scored.labels),
            "patients": len(np.unique(scored.patients)),
            "positives": dict(zip(findings, positives, strict=True)),
        },
        "test_auroc": {
            name: describe_intervals(findings, auroc_intervals(scored, name, seed)) for name in scored.probabilities
        },
        "difference_to_fp32": {
            name: describe_intervals(findings, auroc_differences(scored, "fp32", name, seed))
            for name in scored.probabilities
            if name != "fp32"
        },
        "localisation": {
            name: summarise(overlaps, findings)
            for name, overlaps in scored.overlaps.items()
            if overlaps and not name.endswith(SUFFIX)
        },
        "speed": speeds,
        "gate": decision.to_dict(),
    }


def data_title(data: dict) -> str:
    """A title such as `test split, phantoms, Delta version 3, 250 images of 80 patients`."""
    images = f"{counted(data['images'], 'image')} of {counted(data['patients'], 'patient')}"
    return f"{data['split']} split, {data['source']}, {images}"


def auroc_table(report: dict) -> Table:
    """AUROC per finding and variant, the mean last; an undefined one is a dash."""
    table = _narrow_table(f"AUROC ({data_title(report['data'])})", "finding")
    for title in ("positives", *(TITLES[name] for name in COMPARED)):
        table.add_column(title, justify="right")
    table.add_column("INT8, 95%", justify="right", no_wrap=True)
    aurocs = report["test_auroc"]
    for finding, positives in (report["data"]["positives"] | {"mean": ""}).items():
        if finding == "mean":
            table.add_section()
        table.add_row(
            Text(finding),
            str(positives),
            *[value_cell(aurocs[name][finding]["value"]) for name in COMPARED],
            _interval(aurocs["int8"][finding]),
            style="bold" if finding == "mean" else None,
        )
    return table


def quality_table(report: dict) -> Table:
    """A line per precision: mean AUROC, difference to FP32, ten-crop if measured, heat maps in boxes."""
    with_crops = any(name.endswith(SUFFIX) for name in report["test_auroc"])
    table = _narrow_table("Quality of each precision", "precision")
    for title in ("mean AUROC", "to FP32, 95%", *(["ten-crop"] if with_crops else []), "heat map in box", "chance"):
        table.add_column(title, justify="right")
    for name in report["speed"]:
        difference = report["difference_to_fp32"].get(name)
        places = report["localisation"].get(name, {}).get("all")
        table.add_row(
            TITLES[name],
            value_cell(report["test_auroc"][name]["mean"]["value"]),
            "" if difference is None else _difference(difference["mean"]),
            *([value_cell(report["test_auroc"][name + SUFFIX]["mean"]["value"])] if with_crops else []),
            *(["-", "-"] if places is None else [f"{places[key]:.2f}" for key in ("pointing_game", "chance")]),
        )
    return table


def answer_table(report: dict) -> Table:
    """A line per finding of INT8's answers at the error rate: how often they are wrong, how often unsure, with 95%."""
    described = report["unsure"]["int8"]
    title = f"INT8 answers at an error rate of {described['error_rate']:g} ({report['data']['split']} split, 95%)"
    table = _narrow_table(title, "finding")
    for head in ("with it, 'absent'", "without it, 'present'", "unsure"):
        table.add_column(head, justify="right")
    for finding, facts in described["findings"].items():
        table.add_row(Text(finding), *map(Text, share_cells(facts)))
    return table


def speed_table(report: dict) -> Table:
    """A line per precision: latency of one image, images/s of a batch, ratio to FP32's, size, memory of a process."""
    machine = report["machine"]
    title = f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['int8_instructions']) or 'no AVX2'}"
    table = _narrow_table(f"Speed on {title}", "precision")
    for column in ("ms, median", "ms, p95", "images/s", "to FP32", "MB on disk", "MB in memory"):
        table.add_column(column, justify="right")
    for name, speed in report["speed"].items():
        table.add_row(
            TITLES[name],
            f"{speed['latency_ms']:.1f}",
            f"{speed['latency_p95_ms']:.1f}",
            f"{speed['images_per_s']:,.0f}",
            f"{speed['images_per_s'] / report['speed']['fp32']['images_per_s']:.2f}",
            f"{speed['size_mb']:.1f}",
            f"{speed['peak_memory_mb']:,.0f}",
        )
    return table


def _narrow_table(title: str, first: str) -> Table:
    """An empty table that fits terminals of 80 columns."""
    table = Table(title=Text(title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    return table


def _difference(ends: dict[str, float | None]) -> str:
    return f"{value_cell(ends['value'], '+.4f')} {_interval(ends, '+.4f')}".rstrip()


def _interval(ends: dict[str, float | None], form: str = ".3f") -> str:
    return "" if ends["low"] is None else f"\\[{ends['low']:{form}}, {ends['high']:{form}}]"


@PLAIN_TEXT
def draw_report(report: dict, path: Path) -> None:
    """Draws AUROC per finding as bars from 0.5 (chance), with INT8's intervals, INT8's heat maps, and the latencies."""
    aurocs = report["test_auroc"]
    findings = [*report["data"]["positives"], "mean"]
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(14, 1.5 + 0.5 * len(findings)), width_ratios=(3, 1.2, 1.2), layout="constrained"
    )
    figure.suptitle(f"CheXScale, {data_title(report['data'])}")
    height = 0.8 / len(COMPARED)
    for row, name in enumerate(COMPARED):
        values = [aurocs[name][finding]["value"] for finding in findings]
        # An undefined AUROC has no bar.
        lengths = [0 if value is None else value - CHANCE for value in values]
        places = np.arange(len(findings)) + (row - (len(COMPARED) - 1) / 2) * height
        left.barh(places, lengths, height, left=CHANCE, label=TITLES[name], color=COLOURS[name])
        if name == "int8":
            _draw_intervals(left, places, [aurocs[name][finding] for finding in findings])
    left.axvline(CHANCE, color="0.4", linewidth=1)
    left.axhline(len(findings) - 1.5, color="0.8", linewidth=1)
    left.set_yticks(range(len(findings)), findings)
    left.set(
        xlabel="AUROC (0.5 is chance; no bar: undefined; line: 95% interval by patient)",
        ylim=(len(findings) - 0.4, -0.6),
        xlim=(None, 1.0),
    )
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(COMPARED), frameon=False)
    _draw_heat_maps(middle, findings, report["localisation"].get("int8", {}))
    middle.set_ylim(left.get_ylim())
    _draw_latencies(right, report)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def _draw_intervals(axes: plt.Axes, places: np.ndarray, intervals: list[dict]) -> None:
    known = [(place, ends) for place, ends in zip(places, intervals, strict=True) if ends["low"] is not None]
    axes.hlines(
        [place for place, _ in known],
        [ends["low"] for _, ends in known],
        [ends["high"] for _, ends in known],
        color="black",
        linewidth=1,
    )


def _draw_heat_maps(axes: plt.Axes, findings: list[str], places: dict[str, dict]) -> None:
    """Draws how often the peak of INT8's map lies in a box; findings without boxes have no bar."""
    rows = [row for row, finding in enumerate(findings) if places.get("all" if finding == "mean" else finding)]
    shown = [places["all" if findings[row] == "mean" else findings[row]] for row in rows]
    axes.barh(rows, [place["pointing_game"] for place in shown], 0.5, color=COLOURS["int8"], label="INT8")
    axes.plot([place["chance"] for place in shown], rows, "k|", markersize=14, label="a random place")
    axes.axhline(len(findings) - 1.5, color="0.8", linewidth=1)
    axes.set_yticks(range(len(findings)), [])
    axes.set(xlabel="share of the images with boxes\n(last line: of all)", xlim=(0, 1))
    axes.set_title("Peak of the heat map\nin the finding's box" + "\n" * bool(rows), fontsize=10)
    if rows:
        # Above the bars, any of which may be long.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.995), ncols=2, fontsize=8, frameon=False)


def _draw_latencies(axes: plt.Axes, report: dict) -> None:
    speeds, machine = report["speed"], report["machine"]
    names = [name for name in TITLES if name in speeds]
    bars = axes.bar(
        [TITLES[name] for name in names],
        [speeds[name]["latency_ms"] for name in names],
        color=[COLOURS[name] for name in names],
    )
    axes.bar_label(bars, fmt="%.1f")
    axes.margins(y=0.1)
    axes.set(ylabel="milliseconds for one image, median")
    axes.set_title(f"Latency\n{machine['cpu']},\n{machine['cores']} cores", fontsize=10)
