"""Label tables as people keep them: how to read them, and what their words and numbers mean."""

import gzip
import os
import posixpath
import re
import shlex
import unicodedata
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Columns, Etl
from conf.words import counted
from etl.contract.storage import is_local
from etl.contract.words import says_no_finding, split_of
from etl.sources.csv_rows import read_rows

MAX_SHOWN = 20
TABLES = (".csv", ".tsv", ".xlsx")
# Characters of the Unicode categories Cf (formats), Pd (dashes) and Zs (blanks) that look like nothing, - and a blank.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_HYPHENS, _BLANKS = re.compile("[\u2010-\u2015\u2212]"), re.compile(r"\s+")
UNCERTAIN = {"unknown": float("nan"), "zero": 0.0, "one": 1.0}


def read_table(path: UPath, needed: Iterable[str], optional: Iterable[str] | None = None) -> pd.DataFrame:
    """Reads a comma-separated table; header and cells are stripped text, and missing cells are empty.

    The index is each row's line in the file, minus 2 (so that it counts from 0 where no line is blank).
    A file whose name ends in .gz is decompressed. optional: further columns that are read if the table has them, and
    no others, so that a wide table takes little memory; None: all.
    Raises InputError if the file is absent, is not such a table, is truncated, or lacks one of the `needed` columns.
    """
    if not path.is_file():
        raise InputError(f"no label file at {path}{_other_tables(path)}: check --etl.source and --etl.format")
    needed = set(needed)
    kept = None if optional is None else needed.union(optional)
    content = _decompress(path) if path.name.endswith(".gz") else path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it contains null bytes")
    except ValueError as error:
        raise InputError(
            f"{path} is not a comma-separated table in UTF-8 ({error}), expected a label file: get a fresh copy, or "
            "save it as CSV in UTF-8"
        ) from error
    del content
    written = read_rows(path, text, needed, kept)
    if not written.rows:
        raise InputError(f"{path} has a header but no rows: get a fresh copy")
    names = [name or f"Unnamed: {place}" for place, name in enumerate(written.header)]
    table = pd.DataFrame(written.rows, pd.Index(written.lines) - 2, names, dtype=object)
    # Commas at the end of every row make columns without a name.
    nameless = [name for name in names if name.startswith("Unnamed: ") and (table[name].str.strip() == "").all()]
    table = table.drop(columns=nameless)
    if kept is not None:
        table = table[[name for name in table if name in kept]]
    # Each different cell once: most columns have few.
    return table.apply(lambda cells: cells.map({cell: _plain(cell) for cell in cells.unique()}))


def _plain(cell: str) -> str:
    """The cell without blanks around it. Spreadsheets write ="0017" for a number that is text."""
    cell = cell.strip()
    return cell[2:-1] if len(cell) > 2 and cell.startswith('="') and cell.endswith('"') else cell


def _decompress(path: UPath) -> bytes:
    """The content of a gzip file. Raises InputError if it is damaged or truncated."""
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is not a whole gzip file ({error}): the download was cut or damaged, so get a fresh copy"
        ) from error


def table_path(source: UPath, name: str) -> UPath:
    """The label file of this name; without `..` in it, so that it is known among the source's files.

    Raises InputError for a name that is none, an address, or a path of this machine if the source is a store.
    """
    expanded = os.path.expanduser(name)
    if not name or "://" in name or (os.path.isabs(expanded) and not is_local(source)):
        raise InputError(
            f"etl.columns.label_file is {name!r}, expected the name of a table below the source: copy it there"
        )
    return source / posixpath.normpath(expanded)


def _other_tables(path: UPath) -> str:
    """A sentence on the tables that are there instead; empty if there are none."""
    folder = path.parent
    found = [file for pattern in ("*", "*/*") for file in folder.glob(pattern) if file.suffix.lower() in TABLES]
    others = sorted(str(file)[len(str(folder)) :].lstrip("/") for file in found)
    if not others:
        return ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    join = ", or, as one table is read, join them with a column for the split" if len(others) > 1 else ""
    return (
        f", but {', '.join(others[:3])}{more}: name the table with --etl.columns.label_file, if it is comma-separated"
        f"{join}"
    )


def read_lines(path: UPath, what: str, advice: str) -> list[str]:
    """The stripped lines of a text file, without blank ones.

    what: what the file should be. advice: the next step. Both are for the InputError that is raised if it is missing.
    """
    if not path.is_file():
        raise InputError(f"no {what} at {path}: {advice}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}), expected a {what}: get a fresh copy") from error
    return [line.strip() for line in lines if line.strip()]


def optional_column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column of a table from read_table; empty cells if the table lacks it."""
    return table[name] if name in table.columns else pd.Series("", index=table.index)


def describe_unread(columns: list[str]) -> list[str]:
    """A sentence on columns of a table that are not read; empty if there are none."""
    shown = f"{', '.join(columns[:MAX_SHOWN])}{' ...' * (len(columns) > MAX_SHOWN)}"
    return [f"columns that are not read: {shown}"] if columns else []


def describe_lacking(table: pd.DataFrame, columns: Iterable[str], path: UPath) -> list[str]:
    """A sentence on columns that the table lacks, so that what they say is unknown; empty if it has all."""
    lacking = [name for name in columns if name not in table.columns]
    return [f"{path.name} has no column {', '.join(map(repr, lacking))}, so that is unknown"] if lacking else []


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
