"""The manifest of a folder in the NIH ChestX-ray14 layout: which images there are, of whom, with which findings.

Data_Entry_2017*.csv   labels, one row per image (Wang et al., CVPR 2017; v2020 is the corrected release)
train_val_list.txt     the official split by patient
test_list.txt
images/*.png           or images_001/images/*.png ... as downloaded
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.settings import Etl
from etl.schema import NIH_FINDINGS, NO_FINDING
from etl.split import assign_official, read_list

LABEL_FILES = "Data_Entry_2017*.csv"
LISTS = ("train_val_list.txt", "test_list.txt")
NEEDED_COLUMNS = ["Image Index", "Finding Labels", "Patient ID"]
# Ages above this are typing errors of the first release (up to 413 years).
MAX_AGE_YEARS = 120
# Units of an age such as 018M (DICOM PS3.5, section 6.2, AS); v2020 has bare years.
YEARS_PER_UNIT = {"": 1, "Y": 1, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True)
class Manifest:
    """Every listed image that has a file, and what the source names beside that."""

    images: pd.DataFrame
    """image_id, path, patient_id, follow_up, age_years, sex, view, findings, split (None: in neither list)"""
    listed: int
    """images in the label file"""
    absent: int
    """of these, without a file"""
    unlisted: int
    """files that the label file does not name"""
    sha256: dict[str, str]
    """label and list files -> hash of their bytes"""


def read_manifest(source: Path, settings: Etl) -> Manifest:
    """Reads the label file and the lists and looks for the images; opens no image.

    Raises InputError for a missing or unreadable folder, file or column, a label outside the vocabulary, an image named
    twice, a row without a patient, a patient in both lists, or a source without any of the listed images.
    """
    if not source.is_dir():
        raise InputError(f"no source folder at {source}: give it with --etl.source (see README, real data)")
    label_files = sorted(source.glob(LABEL_FILES))
    if len(label_files) != 1:
        found = ", ".join(file.name for file in label_files) or "none"
        raise InputError(f"{source} should hold one label file {LABEL_FILES}, found: {found}")
    labels = _read_labels(label_files[0])
    # Over all listed images, so that a fault of the lists shows even where images are absent.
    train_val, test = (read_list(source / name) for name in LISTS)
    labels["split"] = assign_official(labels, train_val, test, settings.val_fraction, settings.seed)
    paths = _find_images(source, settings.image_folders)
    present = labels[labels.image_id.isin(paths)].reset_index(drop=True)
    if present.empty:
        raise InputError(
            f"none of the {len(labels)} images in {label_files[0].name} is in {source} below {settings.image_folders} "
            f"({len(paths)} other files found): check --etl.source and --etl.image_folders"
        )
    present["path"] = present.image_id.map(paths)
    files = [label_files[0], *(source / name for name in LISTS)]
    return Manifest(
        images=present,
        listed=len(labels),
        absent=len(labels) - len(present),
        unlisted=len(paths) - len(present),
        sha256={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    )


def _read_labels(path: Path) -> pd.DataFrame:
    # Two of NIH's column names contain commas, so the header seems to have 11 columns; the rows do have 11 cells.
    # index_col=False: the first release ends its rows with one comma more than its header.
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise InputError(
            f"{path} is no comma-separated table in UTF-8 ({error}), expected NIH's label file: download it again"
        ) from error
    missing = [column for column in NEEDED_COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"{path} lacks the columns {missing}: found {list(table.columns)}")

    def column(name: str) -> pd.Series:
        return table[name].str.strip() if name in table.columns else pd.Series("", index=table.index)

    images, patients = column("Image Index"), column("Patient ID")
    duplicates = images[images.duplicated()]
    if len(duplicates):
        raise InputError(
            f"{path} names {len(duplicates)} images twice, such as {duplicates.iloc[0]}: keep one row each"
        )
    without_patient = table.index[patients == ""]
    if len(without_patient):
        # Whoever it is could be in another split already.
        raise InputError(f"{path} line {without_patient[0] + 2}: no patient, expected one in each row; mend the row")
    return pd.DataFrame(
        {
            "image_id": images,
            # One release writes 1, another 00000001: the same patient.
            "patient_id": patients.str.replace(r"^0+(?=\d+$)", "", regex=True),
            "follow_up": pd.to_numeric(column("Follow-up #"), errors="coerce").astype("Int32"),
            "age_years": _parse_ages(column("Patient Age")),
            "sex": column("Patient Gender").where(lambda sex: sex.isin(["F", "M"]), None),
            "view": column("View Position").where(lambda view: view.isin(["PA", "AP"]), None),
            "findings": _parse_findings(table["Finding Labels"], path),
        }
    )


def _parse_ages(cells: pd.Series) -> pd.Series:
    """Cells such as `58`, `060Y` or `018M` to years, Float32; NA for all else and above MAX_AGE_YEARS."""
    parts = cells.str.extract(r"^(\d+\.?\d*)([YMWD]?)$")
    years = pd.to_numeric(parts[0]) * parts[1].map(YEARS_PER_UNIT)
    return years.where(years <= MAX_AGE_YEARS).astype("Float32")


def _parse_findings(cells: pd.Series, path: Path) -> list[np.ndarray]:
    """Cells such as `Effusion|Mass` to arrays of 0 and 1 in the order of the vocabulary."""
    position = {finding: index for index, finding in enumerate(NIH_FINDINGS)}
    rows = []
    for line, cell in enumerate(cells, start=2):
        row = np.zeros(len(NIH_FINDINGS), dtype=np.float32)
        # The label file writes Pleural_Thickening, NIH's paper and other lists write it with a blank.
        for label in cell.replace("Pleural Thickening", "Pleural_Thickening").split("|"):
            if label in position:
                row[position[label]] = 1
            elif label != NO_FINDING:
                raise InputError(
                    f"{path} line {line}: label {label!r} is not in the vocabulary, expected {NO_FINDING!r} or some of "
                    f"{', '.join(NIH_FINDINGS)} joined by |"
                )
        rows.append(row)
    return rows


def _find_images(source: Path, folders: list[str]) -> dict[str, str]:
    """File name -> absolute path of every PNG directly in one of the folders (glob patterns below the source)."""
    paths: dict[str, str] = {}
    for folder in _match_folders(source, folders):
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.lower().endswith(".png"):
                    continue
                if entry.name in paths:
                    raise InputError(
                        f"two images are named {entry.name}: {paths[entry.name]} and {entry.path}; keep one, or "
                        "choose the folder with --etl.image_folders"
                    )
                paths[entry.name] = str(Path(entry.path).absolute())
    return paths


def _match_folders(source: Path, patterns: list[str]) -> list[Path]:
    """The folders that match any of the patterns, each once however many patterns or links lead to it."""
    folders: dict[Path, Path] = {}
    for pattern in patterns:
        try:
            matches = sorted(source.glob(pattern))
        except (NotImplementedError, ValueError, IndexError) as error:
            raise InputError(
                f"etl.image_folders holds {pattern!r}, expected names or glob patterns of folders below the "
                "source, such as images_*/images: give a folder elsewhere by its parent as --etl.source"
            ) from error
        folders |= {folder.resolve(): folder for folder in matches if folder.is_dir()}
    return list(folders.values())
