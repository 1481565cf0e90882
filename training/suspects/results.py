"""What label_quality/ holds besides the page: the ranked suspects, the report, and the table for judging."""

import hashlib
import json
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from conf.errors import InputError
from conf.words import RESEARCH_USE, counted
from conf.workspace import Workspace
from conf.writing import atomic_path, write_json
from etl.contract.version import TableVersion
from training.measures.cells import markdown_table, value_cell
from training.suspects.find import COLUMNS, Found
from training.suspects.predicted import Predicted

SUSPECTS, TO_JUDGE, REPORT, TEXT = "suspects.csv", "to_judge.csv", "report.json", "report.md"
WRITTEN = "to_judge_sha256"
"""key of report.json"""
JUDGING = ["image", "finding", "was", "label", "who", "why"]
"""columns of to_judge.csv; a person fills in the last three"""
HEADS = ("finding", "present", "AUROC", "suspects", "wrong of present", "at most", "wrong of absent", "at most")
READ_WITH_CARE = (
    "Suspects are labels that the model confidently contradicts. The shares of wrong labels are estimates by confident "
    "learning (Northcutt et al. 2021), with 95% intervals by patient. What the model itself gets wrong counts too, so "
    "a weak model's shares are too high. `At most` counts it less: the ends of the ROC curve allow no larger share "
    "(upper end of the 95% interval), if wrong labels are as likely on any film with the finding, and on any without."
)


def refuse_judged(workspace: Workspace) -> None:
    """Raises InputError if to_judge.csv is not as this command wrote it: it would be replaced, judgements and all."""
    path, report = workspace.label_quality / TO_JUDGE, workspace.label_quality / REPORT
    if not path.exists():
        return
    written = json.loads(report.read_text(encoding="utf-8")).get(WRITTEN) if report.exists() else None
    # A spreadsheet may have saved it with other separators, letters and heads.
    if digest_of(path) != written:
        raise InputError(
            f"{path} is not as this command wrote it, so somebody may have judged labels there, and it would be "
            "replaced: move it to where --etl.corrections will find it"
        )


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shown_of(found: Found, number: int) -> pd.DataFrame:
    """The first suspects of each finding, as in Found."""
    return found.suspects[found.suspects["rank"] <= number]


def report_of(table: TableVersion, found: Found, predicted: Predicted, trainings: list[str], notes: list[str]) -> dict:
    """The report, ready for JSON."""
    return {
        "note": RESEARCH_USE,
        "data": table.card.title,
        "delta_table_id": table.card.delta_table_id,
        "delta_version": table.card.delta_version,
        "trainings": trainings,
        "images": len(predicted.rows),
        "patients": int(predicted.rows["patient_id"].nunique()),
        "findings": found.findings,
        "left_out": found.left_out,
        "notes": [*predicted.notes, *notes],
    }


def write_results(workspace: Workspace, report: dict, found: Found, shown: pd.DataFrame) -> None:
    """Writes each file atomically; report.json last."""
    folder = workspace.label_quality
    _write_table(folder / SUSPECTS, found.suspects[COLUMNS])
    judging = shown.rename(columns={"image_id": "image", "label": "was"})
    _write_table(folder / TO_JUDGE, judging.assign(label="", who="", why="")[JUDGING])
    with atomic_path(folder / TEXT) as temporary:
        temporary.write_text(as_markdown(report), encoding="utf-8")
    write_json(folder / REPORT, report | {WRITTEN: digest_of(folder / TO_JUDGE)})


def as_markdown(report: dict) -> str:
    """The report for people."""
    lines = [f"# {title_of(report)}", "", f"**{RESEARCH_USE}** {READ_WITH_CARE}", ""]
    lines += [*markdown_table(HEADS, cells_of(report)), ""]
    lines += [f"- Left out: {finding}: {why}" for finding, why in report["left_out"].items()]
    lines += [f"- {note}" for note in report["notes"]]
    return "\n".join([*lines, ""])


def title_of(report: dict) -> str:
    """Such as `Label quality of phantoms, Delta version 0: 608 images of 147 patients`."""
    size = f"{counted(report['images'], 'image')} of {counted(report['patients'], 'patient')}"
    return f"Label quality of {report['data']}: {size}"


def table_of(report: dict) -> Table:
    """The table that is printed."""
    table = Table(title=Text(title_of(report), "table.title"), title_justify="left", box=box.SIMPLE_HEAD)
    for head in HEADS:
        is_name = head == "finding"
        table.add_column(head, justify="left" if is_name else "right", no_wrap=is_name, overflow="fold")
    for row in cells_of(report):
        table.add_row(*map(Text, row))
    return table


def cells_of(report: dict) -> list[list[str]]:
    """The cells of HEADS, a row per finding."""
    return [
        [
            finding,
            f"{part['present']:,}",
            value_cell(part["auroc"]),
            f"{part['suspects_present'] + part['suspects_absent']:,}",
            *(cell for of in ("present", "absent") for cell in _share_cells(part, f"wrong_{of}")),
        ]
        for finding, part in report["findings"].items()
    ]


def _share_cells(part: dict, rate: str) -> list[str]:
    """Such as `12.3% [8.0, 17.2]`, and what it is at most, such as `9.1%`."""
    ends, limit = part[rate], part[f"{rate}_limit"]["high"]
    interval = "" if ends["low"] is None else f" [{100 * ends['low']:.1f}, {100 * ends['high']:.1f}]"
    return [value_cell(ends["value"], ".1%") + interval * (ends["value"] is not None), value_cell(limit, ".1%")]


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
