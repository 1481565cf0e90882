"""Reads a table of corrected labels: who said what of which image, and why.

image,finding,was,label,who,why       `was` may be empty or absent; a row without label, who and why is not judged yet
a/17.png,Effusion,1,0,Dr. Lee,a skin fold
a/18.png,Effusion,0,exclude,Dr. Lee,a lateral view
"""

import math
from dataclasses import dataclass

from upath import UPath

from conf.errors import InputError
from conf.hints import meant
from etl.contract.terms import meant_by
from etl.sources.manifest import Manifest
from etl.sources.tables.cells import UNCERTAIN
from etl.sources.tables.file import optional_column, read_table

EXCLUDE = "exclude"
NEEDED = ("image", "finding", "label", "who", "why")
WORDS = {1.0: "present", 0.0: "absent"}


@dataclass(frozen=True)
class Correction:
    """One judged row."""

    line: int
    image: str
    finding: int | None
    """index in the vocabulary; None if the image is left out"""
    label: float
    """1 present, 0 absent, NaN unknown; of no meaning if the image is left out"""
    was: float | None
    """the label that was judged; None if the row does not say it"""
    who: str
    why: str


def read_corrections(path: UPath, manifest: Manifest, uncertain: str) -> tuple[list[Correction], int]:
    """The judged rows of a file, each once, and the number of rows that are not judged.

    uncertain: what -1 means, `unknown`, `zero` or `one`. Raises InputError, with the line, for what cannot be meant.
    """
    if not path.is_file():
        raise InputError(f"no table of corrections at {path}: check --etl.corrections")
    table = read_table(path, NEEDED)
    table["was"] = optional_column(table, "was")
    known, rows, waiting = set(manifest.names), {}, 0
    for line, cells in zip(table.index + 2, table[[*NEEDED, "was"]].to_dict("records"), strict=True):
        if not any(cells[name] for name in ("label", "who", "why")):
            waiting += 1
            continue
        row = _read(f"{path} line {line}", int(line), cells, known, manifest.findings, uncertain)
        earlier = rows.setdefault((row.image, row.finding), row)
        if not same(earlier.label, row.label):
            raise InputError(
                f"{path} lines {earlier.line} and {line}: {row.image} gets two labels of {cells['finding']}: keep one "
                "row"
            )
    return list(rows.values()), waiting


def _read(
    where: str, line: int, cells: dict[str, str], known: set[str], findings: list[str], uncertain: str
) -> Correction:
    """The correction in a row. Raises InputError, with the place, for what cannot be meant."""
    for name, advice in (("who", "write who has judged it"), ("why", "write the reason"), ("label", "write the label")):
        if not cells[name]:
            raise InputError(f"{where}: {name} is empty: {advice}, or clear label, who and why of a row to leave open")
    if cells["image"] not in known:
        example = next(iter(known), "")
        raise InputError(
            f"{where}: {cells['image']!r} is no image of the source, expected a name as in the table's column "
            f"image_id, such as {example!r}: fix or remove the row"
        )
    excluded = cells["label"].lower() == EXCLUDE
    finding = None if excluded and not cells["finding"] else _find(where, cells["finding"], findings)
    label = math.nan if excluded else _value(where, "label", cells["label"], uncertain)
    was = _value(where, "was", cells["was"], "unknown") if cells["was"] else None
    return Correction(line, cells["image"], None if excluded else finding, label, was, cells["who"], cells["why"])


def _find(where: str, name: str, findings: list[str]) -> int:
    found = meant_by(name, findings) if name else []
    if len(found) != 1:
        raise InputError(
            f"{where}: the finding is {name!r}, expected one of {', '.join(findings)}{meant(name, findings)}: fix or "
            "remove the row"
        )
    return findings.index(found[0])


def _value(where: str, column: str, cell: str, uncertain: str) -> float:
    meaning = {"1": 1.0, "0": 0.0, "-1": UNCERTAIN[uncertain]}
    # Spreadsheets write 1.0 for a number in a column with empty cells.
    plain = cell.removesuffix(".0")
    if plain not in meaning:
        expected = "1 (present), 0 (absent) or -1 (uncertain)" + f", or {EXCLUDE}" * (column == "label")
        raise InputError(f"{where}: {column} is {cell!r}, expected {expected}: fix the row")
    return meaning[plain]


def same(one: float, other: float) -> bool:
    """Whether two labels are the same; unknown is."""
    return one == other or (math.isnan(one) and math.isnan(other))


def word(label: float) -> str:
    """Such as `present`."""
    return WORDS.get(label, "unknown")
