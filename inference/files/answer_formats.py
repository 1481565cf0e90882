"""Answers as text: a table for people, JSON Lines and CSV for programs. Pure functions."""

import csv
import io
import json
import os
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conf.words import RESEARCH_USE
from etl.contract.images.lungs.crop import Crop
from inference.film.answers import Finding, Findings
from inference.model.properties import ATTRIBUTES
from training.measures.cells import value_cell
from training.measures.conformal import ANSWERS, UNSURE

# The last four were added later, so that programs that count columns find the others where they have always been.
CSV_COLUMNS = (
    *("file", "finding", "probability", "threshold", "called", "familiar", "warnings", "error"),
    *("operating_point", *ATTRIBUTES),
)
ANSWER_COLUMNS = ("answer", "absent_below", "present_above", "error_rate")
"""after the others, only for a model that answers unsure"""
NO_VALUES = [None] * len(ATTRIBUTES)


@dataclass(frozen=True)
class Answered:
    """One file, with its findings or the reason why it has none."""

    path: str
    findings: Findings | None
    fault: str | None
    width_px: int | None = None
    height_px: int | None = None
    heatmaps: list[str] = field(default_factory=list)
    """pictures that were written"""
    crop: Crop | None = None
    """the part of the film that the model saw; None: all of it"""


def as_json(answered: Answered, model: dict) -> str:
    """One line of JSON: the file, the model that answered, and `findings` and the rest of Findings, or `error`.

    model: name, version, mode, operating point; stands in every line, so that each can be kept by itself.
    """
    line = {"file": answered.path} | model
    if answered.findings is None:
        return json.dumps(line | {"error": answered.fault})
    size = {"width_px": answered.width_px, "height_px": answered.height_px}
    size |= {"crop": answered.crop and answered.crop.to_dict()}
    return json.dumps(line | size | answered.findings.to_dict() | {"heatmaps": answered.heatmaps, "note": RESEARCH_USE})


def as_csv(answered: Answered, operating_point: str, unsure: bool = False) -> str:
    """A line per finding of the file, in the order of CSV_COLUMNS; one line with the error if it has no findings.

    unsure: whether the model answers unsure, so that ANSWER_COLUMNS follow.

    Empty: unknown. called, familiar: 1 or 0. operating_point: the one that the thresholds are of. age_years, sex, view:
    as the model got them; empty too if it takes pixels alone.
    """
    file, found = io.StringIO(), answered.findings
    lines = csv.writer(file, lineterminator="\n")
    name, nothing = printable(answered.path), [None] * len(ANSWER_COLUMNS) * unsure
    if found is None:
        lines.writerow([name, *[None] * 6, answered.fault, operating_point, *NO_VALUES, *nothing])
        return file.getvalue()
    for finding in found.findings:
        called = None if finding.present is None else int(finding.present)
        numbers = _numbers(finding.probability, finding.threshold)
        bounds = _numbers(finding.absent_below, finding.present_above)
        answer = [finding.answer, *bounds, found.error_rate] if unsure else []
        warnings = "; ".join(found.warnings)
        got = vars(found.stated.values).values() if found.stated else NO_VALUES
        about = [int(found.familiar), warnings, None, operating_point, *got]
        lines.writerow([name, finding.name, *numbers, called, *about, *answer])
    return file.getvalue()


def _numbers(*values: float | None) -> list[str | None]:
    return [None if value is None else f"{value:.6g}" for value in values]


def as_table(answered: Answered, console: Console) -> str:
    """Every finding of one file, the called ones first, then the more probable; why there is none."""
    found = answered.findings
    with console.capture() as captured:
        console.print(Text(printable(answered.path), "bold"), soft_wrap=True)
        for warning in found.warnings:
            console.print(Text(f"warning: {warning}", "yellow"), soft_wrap=True)
        if found.stated:
            console.print(Text(f"read with {found.stated}"), soft_wrap=True)
        if found.familiar:
            console.print(_table(found))
    return captured.get()


def _table(found: Findings) -> Table:
    table = Table("finding", box=None, pad_edge=False)
    for name in ("probability", "threshold"):
        table.add_column(name, justify="right")
    table.add_column()
    for finding in sorted(found.findings, key=_order):
        threshold = value_cell(finding.threshold)
        called = "called" if finding.present else "no threshold" if finding.threshold is None else ""
        style = "bold" if finding.called else "italic" if finding.answer == UNSURE else ""
        said = finding.answer or called
        table.add_row(Text(finding.name), f"{finding.probability:.3f}", threshold, said, style=style)
    return table


def as_line(answered: Answered, width: int, console: Console) -> str:
    """The called findings of one of many files, or a dash, and the unsure ones. width: characters of a file name."""
    found = answered.findings
    ordered = sorted(found.findings, key=_order)
    said = ", ".join(f"{finding.name} {finding.probability:.2f}" for finding in ordered if finding.called)
    line = Text.assemble(printable(answered.path).ljust(width), ("  " + (said or "-"), "bold"))
    if unsure := [f"{finding.name} {finding.probability:.2f}" for finding in ordered if finding.answer == UNSURE]:
        line.append(f"  unsure: {', '.join(unsure)}", "italic")
    if found.stated:
        line.append(f"  {found.stated}")
    if found.warnings:
        line.append("  warning: " + "; ".join(found.warnings), "yellow")
    with console.capture() as captured:
        console.print(line, soft_wrap=True)
    return captured.get()


def printable(path: str) -> str:
    """The path for people: control characters, and characters without an encoding, become question marks."""
    readable = os.fsencode(path).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in readable)


def _order(finding: Finding) -> tuple:
    rank = ANSWERS.index(finding.answer) if finding.answer else not finding.present
    return (rank, finding.threshold is None, -(finding.probability or 0))
