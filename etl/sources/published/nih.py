"""The manifest of a folder in the NIH ChestX-ray14 layout.

Data_Entry_2017*.csv   labels, one row per image (Wang et al., CVPR 2017; v2020 is the corrected release);
                       sample_labels.csv is the table of the sample of 5,606 images
train_val_list.txt     the official split by patient; not needed with etl.split lists or hashed
test_list.txt
BBox_List_2017.csv     radiologists' boxes; may be absent
images/*.png           or images_001/images/*.png ... as downloaded
"""

import os
import re

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.listing import list_files
from etl.contract.schema import NIH_FINDINGS, NO_FINDING, PHANTOM_FINDINGS, PHANTOMS_FILE
from etl.contract.storage import is_local
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.split import OFFICIAL_LISTS, assign_official, assign_split, describe_unlisted
from etl.sources.tables.file import describe_lacking, optional_column, read_lines, read_table

LABEL_FILES = ("Data_Entry_2017*.csv", "sample_labels.csv")
BOX_FILE = "BBox_List_2017.csv"
BOX_NAMES = {"Infiltrate": "Infiltration"}
"""name in the box file -> name in the label file, for the one finding where they differ"""
BOX_FRAME_PX = 1024
"""side of the original PNGs, whose pixels the boxes refer to even if the images at hand are smaller copies"""
# Two of NIH's other column names contain a comma, so the header is read as 11 columns, which match the rows' 11 cells.
NEEDED_COLUMNS = ["Image Index", "Finding Labels", "Patient ID"]
OPTIONAL_COLUMNS = ["Follow-up #", "Patient Age", "Patient Gender", "View Position"]


def read_nih(source: UPath, settings: Etl) -> Manifest:
    """Reads the label file, lists and boxes, and locates the images without opening any.

    Raises InputError for a missing or unreadable folder, file or column, a label outside the vocabulary, an image named
    twice, a row without a patient, a patient in both lists, or a source that has none of the listed images.
    """
    label_files = sorted((file for pattern in LABEL_FILES for file in source.glob(pattern)), key=str)
    if len(label_files) != 1:
        found = ", ".join(file.name for file in label_files) or "none"
        raise InputError(
            f"{source} must hold one label file {' or '.join(LABEL_FILES)}, found {found}: check --etl.source and "
            "--etl.format, or move all but one out of the source"
        )
    # A finding that no phantom has could not be learned.
    vocabulary = PHANTOM_FINDINGS if (source / PHANTOMS_FILE).is_file() else NIH_FINDINGS
    table = read_table(label_files[0], NEEDED_COLUMNS)
    rows, tables = _read_labels(table, label_files[0], vocabulary), [label_files[0]]
    notes = describe_lacking(table, OPTIONAL_COLUMNS, label_files[0])
    if (source / BOX_FILE).is_file():
        tables.append(source / BOX_FILE)
        boxes = _read_boxes(source / BOX_FILE, vocabulary)
        rows["boxes"] = pd.Series([boxes.get(image, []) for image in rows.image_id], rows.index)
        if others := sorted(boxes.keys() - set(rows.image_id)):
            images, are = counted(len(others), "image"), "is" if len(others) == 1 else "are"
            notes.append(f"{images} of {BOX_FILE}, such as {others[0]}, {are} not in {label_files[0].name}")
    # Covers all listed images, so that a fault in the lists is found even if images are absent.
    official = None
    if settings.split == "source":
        tables += [source / name for name in OFFICIAL_LISTS]
        advice = f"get both {' and '.join(OFFICIAL_LISTS)}, or split by --etl.split hashed or lists"
        train_val, test = (
            {line.split()[0] for line in read_lines(source / name, "split list", advice)} for name in OFFICIAL_LISTS
        )
        for name, listed in zip(OFFICIAL_LISTS, (train_val, test), strict=True):
            notes += describe_unlisted(rows.image_id, listed, name)
        official = assign_official(rows, train_val, test)
    rows = assign_split(rows, settings, official)
    files = list_files(source).drop(index=[*OFFICIAL_LISTS, BOX_FILE, PHANTOMS_FILE], errors="ignore")
    rows["file"] = _match_images(rows.image_id, files, source, settings.image_folders)
    searched = (
        f"images in {label_files[0].name} is in the folders {settings.image_folders} of {source}: check "
        "--etl.source and --etl.image_folders"
    )
    why = f"not listed in {label_files[0].name}, or outside of the image folders"
    return assemble(rows, files, list(vocabulary), tables, searched, left_out=why, notes=notes)


def _read_labels(table: pd.DataFrame, path: UPath, vocabulary: tuple[str, ...]) -> pd.DataFrame:
    cells = table["Finding Labels"].astype(object)
    strange = cells.where(cells.str.contains(NO_FINDING) & cells.str.contains("|", regex=False), None)
    return rows_of(table, path, _parse_findings(table["Finding Labels"], path, vocabulary), strange)


def rows_of(
    table: pd.DataFrame, path: UPath, findings: list[np.ndarray], strange_labels: pd.Series | None = None
) -> pd.DataFrame:
    """The rows of build_rows of a table with NIH's columns; findings, strange_labels: as there."""
    return build_rows(
        path,
        images=table["Image Index"],
        patients=table["Patient ID"],
        follow_up=optional_column(table, "Follow-up #"),
        age=optional_column(table, "Patient Age"),
        sex=optional_column(table, "Patient Gender"),
        view=optional_column(table, "View Position"),
        findings=findings,
        strange_labels=strange_labels,
    )


def _parse_findings(cells: pd.Series, path: UPath, vocabulary: tuple[str, ...]) -> list[np.ndarray]:
    """Cells such as `Effusion|Mass` as float32 arrays of 0 and 1 in the order of the vocabulary."""
    position = {finding: index for index, finding in enumerate(vocabulary)}
    rows = []
    for index, cell in cells.items():
        row = np.zeros(len(vocabulary), dtype=np.float32)
        # The label file writes Pleural_Thickening; NIH's paper and other lists write a space.
        for label in cell.replace("Pleural Thickening", "Pleural_Thickening").split("|"):
            if label in position:
                row[position[label]] = 1
            elif label != NO_FINDING:
                raise InputError(
                    f"{path} line {index + 2}: label {label!r} is not in the vocabulary, expected {NO_FINDING!r} or "
                    f"some of {', '.join(vocabulary)} joined by |"
                )
        rows.append(row)
    return rows


def _read_boxes(path: UPath, vocabulary: tuple[str, ...]) -> dict[str, list[float]]:
    """The boxes of each image, in the contract's format.

    The header names three columns, but the rows have six cells or nine. Some name several findings, joined by |.
    """
    boxes: dict[str, list[float]] = {}
    lines = read_lines(path, "box file", "check --etl.source")
    for number, line in enumerate(lines, start=1):
        # The header, which has no numbers.
        if number == 1 and not re.search(r",\s*\d", line):
            continue
        image, names, *cells = line.rstrip(", ").split(",") + [""]
        findings = [BOX_NAMES.get(name, name).replace(" ", "_") for name in names.split("|")]
        box = [float(cell) / BOX_FRAME_PX for cell in cells if re.fullmatch(r"\d+(\.\d*)?", cell)]
        if not (set(findings) <= set(vocabulary) and len(box) == 4 and min(box[2:]) > 0 and _is_inside(box)):
            raise InputError(
                f"{path} line {number}: {line!r}, expected an image, findings of the vocabulary and x, y, width and "
                f"height in pixels from 0 to {BOX_FRAME_PX}: fix the row, or remove the file"
            )
        for finding in findings:
            boxes.setdefault(image, []).extend([float(vocabulary.index(finding)), *box])
    return boxes


def _is_inside(box: list[float]) -> bool:
    """Whether x, y, width and height, as shares of the film, lie on it; a pixel is lost in rounding."""
    x, y, width, height = box
    return max(x + width, y + height) <= 1 + 1 / BOX_FRAME_PX


def _match_images(names: pd.Series, files: pd.DataFrame, source: UPath, patterns: list[str]) -> pd.Series:
    """The file of each image, by its name, directly in one of the folders (glob patterns below the source)."""
    folders, file_names = zip(*(os.path.split(file) for file in files.index), strict=True) if len(files) else ((), ())
    wanted = _match_folders(source, patterns)
    inside = {folder for folder in set(folders) if _real_path(source / folder) in wanted}
    by_name = pd.Series(files.index, list(file_names), dtype=object)[[folder in inside for folder in folders]]
    twice = by_name[by_name.index.duplicated(keep=False) & by_name.index.isin(names)].sort_index()
    if len(twice):
        raise InputError(
            f"two images are named {twice.index[0]}: {source / twice.iloc[0]} and {source / twice.iloc[1]}; keep one, "
            "or choose the folder with --etl.image_folders"
        )
    found = names.map(by_name[~by_name.index.duplicated()])
    return found.astype(object).where(found.notna(), None)


def _real_path(folder: UPath) -> str:
    """The path of a local folder without links; the address of another one."""
    return os.path.realpath(folder) if is_local(folder) else str(folder)


def _match_folders(source: UPath, patterns: list[str]) -> set[str]:
    """The real paths of the folders that match any of the patterns."""
    folders: set[str] = set()
    for pattern in patterns:
        try:
            matches = list(source.glob(pattern))
        except (NotImplementedError, ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f"etl.image_folders holds {pattern!r}, expected names or glob patterns of folders below the "
                "source, such as images_*/images: for a folder elsewhere, give its parent as --etl.source"
            ) from error
        folders |= {_real_path(folder) for folder in matches if folder.is_dir()}
    return folders
