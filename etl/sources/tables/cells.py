"""What the words and numbers in the cells of label tables mean, as people write them."""

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Columns, Etl
from conf.words import counted
from etl.contract.words import says_no_finding, split_of
from etl.sources.tables.file import MAX_SHOWN

# Characters of the Unicode categories Cf (formats), Pd (dashes) and Zs (blanks) that look like nothing, - and a blank.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_HYPHENS, _BLANKS = re.compile("[\u2010-\u2015\u2212]"), re.compile(r"\s+")
UNCERTAIN = {"unknown": float("nan"), "zero": 0.0, "one": 1.0}


def parse_cells(
    table: pd.DataFrame, findings: Iterable[str], path: UPath, uncertain: str, blank: float, named: bool = True
) -> list[np.ndarray]:
    """Columns of 1, 0, -1 (uncertain) and empty cells as one float32 array per row, in the order of `findings`.

    uncertain: what -1 means, `unknown`, `zero` or `one`. blank: what an empty cell means, 0 (absent) or NaN (unknown).
    named: whether the settings name these columns; otherwise all columns without a role are taken for findings.
    Raises InputError for any other cell and names its line.
    """
    meaning = {"1": 1.0, "0": 0.0, "-1": UNCERTAIN[uncertain], "": blank, "nan": float("nan")}
    advice = "make a column of these numbers for each finding"
    if not named:
        advice = "every column without a role is taken for a finding, so name yours with --etl.columns.findings"
    values = []
    for finding in findings:
        spelled = {cell: re.sub(r"\.0+$", "", cell.lower()) for cell in table[finding].unique()}
        cells = table[finding].map(spelled)
        wrong = cells.index[~cells.isin(meaning.keys())]
        if len(wrong):
            if not named and split_of(table[finding][wrong[0]]):
                advice = f"if it holds splits, name it with --etl.columns.split {shlex.quote(finding)}; {advice}"
            raise InputError(
                f"{path} line {wrong[0] + 2}: {finding} is {table[finding][wrong[0]]!r}, expected 1 (present), 0 "
                f"(absent), -1 (uncertain) or an empty cell: {advice}"
            )
        values.append(cells.map(meaning).to_numpy(np.float32))
    return list(np.stack(values, axis=1))


def refuse_rounded(path: UPath, names: pd.Series, what: str) -> None:
    """Raises InputError for a number as spreadsheets write those of 12 and more digits, such as 1.23457E+11.

    what: `image` or `patient`, which the numbers name.
    """
    rounded = names[names.str.fullmatch(r"\d+([.,]\d+)?[eE]\+\d+|\d[.,]\d{3,}[eE]\d+")]
    if len(rounded):
        raise InputError(
            f"{path} line {rounded.index[0] + 2}: the {what} is {rounded.iloc[0]!r}, a number that a spreadsheet has "
            f"rounded, so that different {what}s look alike: export the table again with this column as text"
        )


def read_findings(
    table: pd.DataFrame, roles: Iterable[str], path: UPath, settings: Etl
) -> tuple[pd.DataFrame, list[str], list[np.ndarray], list[str]]:
    """A table from read_table without rows that say the same again; its findings; their values, one float32 array per
    row, see parse_cells; and sentences on how it was understood.

    roles: the columns that are no findings. Raises InputError if no column is left, or for a cell that is no label.
    """
    roles, findings, notes = list(roles), settings.columns.findings, []
    if not findings:
        findings, notes = _other_columns(table, roles, path)
    named = bool(settings.columns.findings)
    labels = parse_cells(table, findings, path, settings.uncertain, blank=float("nan"), named=named)
    repeats = _repeats(table[list(dict.fromkeys(roles))], labels, settings.columns)
    if repeats.any():
        one, many = (
            "row of the table repeats an earlier row and was",
            "rows of the table repeat an earlier row and were",
        )
        notes.append(f"{counted(repeats.sum(), one, many)} read once")
    kept = [row for row, repeat in zip(labels, repeats, strict=True) if not repeat]
    table = table[~repeats]
    refuse_different(
        table[list(dict.fromkeys([settings.columns.image, *roles, *findings]))], path, settings.format != "dicom"
    )
    return table, findings, kept, notes


def refuse_different(table: pd.DataFrame, path: UPath, show: bool, what: tuple[str, str] = ("image", "images")) -> None:
    """Raises InputError for two rows of one image, as several readers write them.

    table: its first column names the image. show: whether cells may be shown; those of DICOM files may name patients.
    what: what the first column names, one and several.
    """
    images = table.iloc[:, 0]
    twice = images[images.duplicated(keep=False) & (images != "")]
    if twice.empty:
        return
    one, other = twice.index[twice == twice.iloc[0]][:2]
    said = table.loc[[one, other]].apply(normalise_patients)
    column = next((name for name in table if said.loc[one, name] != said.loc[other, name]), None)
    differ = f", which differ in {column!r}" if column else ""
    if column and show:
        differ += f" ({table.loc[one, column]!r} and {table.loc[other, column]!r})"
    raise InputError(
        f"{path} names {counted(twice.nunique(), *what)} twice, such as {twice.iloc[0]} in lines {one + 2} and "
        f"{other + 2}{differ}: keep one row per {what[0]}, or join the rows of several readers into one, for example "
        "by majority"
    )


def _other_columns(table: pd.DataFrame, roles: Iterable[str], path: UPath) -> tuple[list[str], list[str]]:
    """Every named column without a role, as findings, and a sentence that says so.

    Raises InputError if none is left.
    """
    taken = set(roles)
    findings = [name for name in table.columns if name not in taken and not name.startswith("Unnamed: ")]
    if not findings:
        raise InputError(f"{path} has no column left for findings: name them with --etl.columns.findings")
    more = f" and {len(findings) - MAX_SHOWN} more" if len(findings) > MAX_SHOWN else ""
    notes = [f"every column without a role is a finding: {', '.join(findings[:MAX_SHOWN])}{more}"]
    nameless = sum(name.startswith("Unnamed: ") for name in table.columns)
    return findings, notes + ([f"not read: {counted(nameless, 'column')} without a name"] if nameless else [])


def contradictions(table: pd.DataFrame, findings: Sequence[str], values: list[np.ndarray]) -> pd.Series:
    """Which finding an image has although the table says `No Finding`, such as `No Finding beside Effusion`; else None.

    values: from parse_cells, in the order of `findings`. CheXpert's `No Finding` does not exclude Support Devices
    (Irvin et al. 2019, section 3).
    """
    others = [index for index, name in enumerate(findings) if not says_no_finding(name) and name != "Support Devices"]
    present = np.stack(values)[:, others] == 1
    beside = pd.Series(None, table.index, dtype=object)
    for column in filter(says_no_finding, table.columns if others else []):
        hits = table[column].str.fullmatch(r"1(\.0+)?").to_numpy() & present.any(axis=1)
        names = [findings[others[index]] for index in present[hits].argmax(axis=1)]
        beside[hits] = [f"{column} beside {name}" for name in names]
    return beside


def _repeats(cells: pd.DataFrame, labels: list[np.ndarray], columns: Columns) -> pd.Series:
    """Which rows say the same as an earlier one, in whatever spelling.

    Tables with one row per box say the same of an image several times. Rows of one image that differ stay, and
    build_rows refuses them. cells: the columns that are no findings. labels: from parse_cells.
    """
    said = cells.copy()
    said[columns.image] = said[columns.image].str.replace("\\", "/").str.replace(r"^(\./)+", "", regex=True)
    if columns.patient in said and columns.patient != columns.image:
        said[columns.patient] = normalise_patients(said[columns.patient])
    return pd.concat([said, pd.DataFrame(np.stack(labels), said.index)], axis=1).duplicated()


def normalise_patients(cells: pd.Series) -> pd.Series:
    """Patients in one spelling, so that nobody is two patients.

    For the same one, tables write 1, 00000001, 1.0 and '1, macOS decomposes an ü, and texts that were copied have
    invisible characters and other blanks and hyphens.
    """
    spelled = {cell: _INVISIBLE.sub("", unicodedata.normalize("NFKC", cell)) for cell in cells.unique()}
    plain = {
        cell: _HYPHENS.sub("-", _BLANKS.sub(" ", text)).strip().removeprefix("'") for cell, text in spelled.items()
    }
    return cells.map(plain).astype(str).str.replace(r"^0*(\d+)(\.0+)?$", r"\1", regex=True)
