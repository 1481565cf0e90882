"""The manifest: which images a source has, of whom, with which findings. Every source is turned into this one."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from conf.errors import InputError

# Ages above this are typing errors, such as the 413 years of ChestX-ray14's first release.
MAX_AGE_YEARS = 120
# Units of an age such as 018M (DICOM PS3.5, section 6.2, AS); most tables have bare years.
YEARS_PER_UNIT = {"": 1, "Y": 1, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}

UNCERTAIN = {"unknown": float("nan"), "zero": 0.0, "one": 1.0}


@dataclass(frozen=True)
class Manifest:
    """Every listed image that has a file, and what the source names beside that."""

    images: pd.DataFrame
    """image_id, path, patient_id, follow_up, age_years, sex, view, findings, split (None: in no split)"""
    findings: list[str]
    """vocabulary, in the order of the `findings` column"""
    listed: int
    """images in the label files"""
    absent: int
    """of these, without a file"""
    unlisted: int
    """files that the label files do not name"""
    sha256: dict[str, str]
    """label and list files -> hash of their bytes"""


def read_table(path: Path, needed: Iterable[str]) -> pd.DataFrame:
    """A comma-separated table, header and cells as text without blanks around it, empty where missing.

    Raises InputError where the file is absent, no such table, or lacks one of the `needed` columns.
    """
    if not path.is_file():
        raise InputError(f"no label file at {path}: check --etl.source and --etl.format")
    try:
        # index_col=False: some tables end their rows with one comma more than their header.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise InputError(
            f"{path} is no comma-separated table in UTF-8 ({error}), expected a label file: get it again"
        ) from error
    table = table.rename(columns=str.strip)
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise InputError(f"{path} lacks the columns {missing}: found {list(table.columns)}")
    return table.apply(lambda cells: cells.str.strip())


def optional_column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column of read_table's, empty cells where the table lacks it."""
    return table[name] if name in table.columns else pd.Series("", index=table.index)


def build_rows(
    path: Path,
    images: pd.Series,
    patients: pd.Series,
    follow_up: pd.Series,
    age: pd.Series,
    sex: pd.Series,
    view: pd.Series,
    findings: list[np.ndarray],
) -> pd.DataFrame:
    """The columns of Manifest.images that a label file gives, from its cells.

    sex, view: the contract's words or None, see known_words. path: for messages.
    Raises InputError for an image that is named twice or has no patient.
    """
    _check_ids(path, images, patients)
    return pd.DataFrame(
        {
            "image_id": images,
            "patient_id": _normalise_patients(patients),
            "follow_up": pd.to_numeric(follow_up, errors="coerce").astype("Int32"),
            "age_years": _parse_ages(age),
            "sex": sex,
            "view": view,
            "findings": findings,
        }
    )


def assemble(
    rows: pd.DataFrame, files: dict[str, str], findings: list[str], tables: Iterable[Path], searched: str
) -> Manifest:
    """The manifest of the rows that have a file.

    rows: build_rows with `split`. files: image_id -> absolute path. tables: label and list files.
    searched: which images were looked for where, and what to check, for the InputError where none has a file.
    """
    present = rows[rows.image_id.isin(files)].reset_index(drop=True)
    if present.empty:
        raise InputError(f"none of the {len(rows)} {searched} ({len(files)} image files found)")
    present["path"] = present.image_id.map(files)
    return Manifest(
        images=present,
        findings=findings,
        listed=len(rows),
        absent=len(rows) - len(present),
        unlisted=len(files) - len(present),
        sha256={table.name: hashlib.sha256(table.read_bytes()).hexdigest() for table in tables},
    )


def _check_ids(path: Path, images: pd.Series, patients: pd.Series) -> None:
    """Raises InputError for an image that is named twice or has no patient, with its line."""
    duplicates = images[images.duplicated()]
    if len(duplicates):
        raise InputError(
            f"{path} names {len(duplicates)} images twice, such as {duplicates.iloc[0]}: keep one row each"
        )
    without_patient = images.index[patients == ""]
    if len(without_patient):
        # Whoever it is could be in another split already.
        raise InputError(f"{path} line {without_patient[0] + 2}: no patient, expected one in each row; mend the row")


def _normalise_patients(cells: pd.Series) -> pd.Series:
    """Numbers without leading zeros: one release writes 1, another 00000001, for the same patient."""
    return cells.str.replace(r"^0+(?=\d+$)", "", regex=True)


def _parse_ages(cells: pd.Series) -> pd.Series:
    """Cells such as `58`, `060Y` or `018M` to years, Float32; NA for all else and above MAX_AGE_YEARS."""
    parts = cells.str.extract(r"^(\d+\.?\d*)([YMWD]?)$")
    years = pd.to_numeric(parts[0]) * parts[1].map(YEARS_PER_UNIT)
    return years.where(years <= MAX_AGE_YEARS).astype("Float32")


def known_words(cells: pd.Series, words: Iterable[str]) -> pd.Series:
    """The cells that are one of `words`, None elsewhere."""
    return cells.where(cells.isin(list(words)), None)


def parse_cells(
    table: pd.DataFrame, findings: Iterable[str], path: Path, uncertain: str, blank: float
) -> list[np.ndarray]:
    """Columns of 1, 0, -1 (uncertain) and empty cells to one float32 array per row, in the order of `findings`.

    uncertain: `unknown`, `zero` or `one`. blank: what an empty cell means: 0 absent, NaN unknown.
    Raises InputError for any other cell, with its line.
    """
    meaning = {"1": 1.0, "0": 0.0, "-1": UNCERTAIN[uncertain], "": blank, "nan": float("nan")}
    values = []
    for finding in findings:
        cells = table[finding].str.lower().str.replace(r"\.0+$", "", regex=True)
        wrong = cells.index[~cells.isin(meaning.keys())]
        if len(wrong):
            raise InputError(
                f"{path} line {wrong[0] + 2}: {finding} is {table[finding][wrong[0]]!r}, expected 1 present, 0 absent, "
                "-1 uncertain, or nothing"
            )
        values.append(cells.map(meaning).to_numpy(np.float32))
    return list(np.stack(values, axis=1))


def find_files(source: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Path below `source` -> absolute path, of every file in it or its folders that ends in one of `suffixes`."""
    return {
        file.relative_to(source).as_posix(): str(file)
        for folder, _, names in os.walk(source)
        for file in (Path(folder, name) for name in names)
        if file.suffix.lower() in suffixes
    }
