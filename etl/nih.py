"""The manifest of a folder in the NIH ChestX-ray14 layout: which images there are, of whom, with which findings.

Data_Entry_2017*.csv   labels, one row per image (Wang et al., CVPR 2017; v2020 is the corrected release)
train_val_list.txt     the official split by patient
test_list.txt
images/*.png           or images_001/images/*.png ... as downloaded
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.settings import Etl
from etl.manifest import Manifest, assemble, build_rows, known_words, optional_column, read_table
from etl.schema import NIH_FINDINGS, NO_FINDING
from etl.split import assign_official, read_list

LABEL_FILES = "Data_Entry_2017*.csv"
LISTS = ("train_val_list.txt", "test_list.txt")
# Two more of NIH's column names contain commas, so the header seems to have 11 columns; the rows do have 11 cells.
NEEDED_COLUMNS = ["Image Index", "Finding Labels", "Patient ID"]


def read_nih(source: Path, settings: Etl) -> Manifest:
    """Reads the label file and the lists and looks for the images; opens no image.

    Raises InputError for a missing or unreadable folder, file or column, a label outside the vocabulary, an image named
    twice, a row without a patient, a patient in both lists, or a source without any of the listed images.
    """
    label_files = sorted(source.glob(LABEL_FILES))
    if len(label_files) != 1:
        found = ", ".join(file.name for file in label_files) or "none"
        raise InputError(f"{source} should hold one label file {LABEL_FILES}, found: {found}")
    labels = _read_labels(label_files[0])
    # Over all listed images, so that a fault of the lists shows even where images are absent.
    train_val, test = (read_list(source / name) for name in LISTS)
    labels["split"] = assign_official(labels, train_val, test, settings.val_fraction, settings.seed)
    paths = _find_images(source, settings.image_folders)
    searched = (
        f"images in {label_files[0].name} is in {source} below {settings.image_folders}: check --etl.source and "
        "--etl.image_folders"
    )
    tables = [label_files[0], *(source / name for name in LISTS)]
    return assemble(labels, paths, list(NIH_FINDINGS), tables, searched)


def _read_labels(path: Path) -> pd.DataFrame:
    table = read_table(path, NEEDED_COLUMNS)
    return build_rows(
        path,
        images=table["Image Index"],
        patients=table["Patient ID"],
        follow_up=optional_column(table, "Follow-up #"),
        age=optional_column(table, "Patient Age"),
        sex=known_words(optional_column(table, "Patient Gender"), ("F", "M")),
        view=known_words(optional_column(table, "View Position"), ("PA", "AP")),
        findings=_parse_findings(table["Finding Labels"], path),
    )


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
