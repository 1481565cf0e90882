"""The manifest of the RSNA Pneumonia Detection Challenge 2018 (Shih et al., Radiology: AI 1(1), 2019), as on Kaggle.

stage_2_train_labels.csv          patientId,x,y,width,height,Target: a row per box, or one without a box
stage_2_detailed_class_info.csv   patientId,class: Lung Opacity, No Lung Opacity / Not Normal, Normal; may be absent
stage_2_train_images/ID.dcm       1024x1024 pixels; the ID is called patientId and names the film

The films are some of ChestX-ray14's, under other names: this table does not say which films are of one person. Ages
and sexes are in the DICOM tags, the ages in years without a unit. stage_2_test_images have no labels.
"""

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.cluster.workers import SparkWorkers
from etl.sources.manifest import Manifest
from etl.sources.published.boxes import read_box
from etl.sources.published.challenge import Box, assemble_challenge
from etl.sources.published.tables import find_table, find_tables
from etl.sources.tables.file import read_table

TABLE, CLASSES = "stage_*_train_labels.csv", "stage_*_detailed_class_info.csv"
OPACITY, ABNORMAL, NORMAL = "Lung Opacity", "No Lung Opacity / Not Normal", "Normal"
"""the classes; films with Target 1 are those of the first"""
CORNERS = ["x", "y", "width", "height"]


def read_rsna(source: UPath, settings: Etl, workers: SparkWorkers) -> Manifest:
    """Reads the tables, and the tags of the films that are DICOM files.

    The findings are `Lung Opacity` (Target) and, if the table of classes is there, `No Lung Opacity / Not Normal`.
    Raises InputError for missing or damaged tables, rows of one film that contradict each other, a Target that is
    neither 0 nor 1, a box of a film without the finding, a film with the finding but no box, or no film at all.
    """
    path = find_table(source, TABLE, "RSNA's labels")
    table = read_table(path, ["patientId", *CORNERS, "Target"])
    boxes = _read_boxes(table, path)
    first = table.drop_duplicates("patientId")
    findings, tables = [OPACITY], [path]
    values = [(first["Target"] == "1").to_numpy(np.float32)]
    if find_tables(source, CLASSES):
        tables.append(find_table(source, CLASSES, "RSNA's classes"))
        classes = _read_classes(tables[1], first.set_index("patientId")["Target"])
        findings.append(ABNORMAL)
        values.append((first["patientId"].map(classes) == ABNORMAL).to_numpy(np.float32))
    labels = list(np.stack(values, axis=1))
    return assemble_challenge(source, settings, workers, tables, first["patientId"], labels, boxes, findings)


def _read_boxes(table: pd.DataFrame, path: UPath) -> dict[str, list[Box]]:
    """The boxes of each film."""
    boxes: dict[str, list[Box]] = {}
    targets: dict[str, str] = {}
    for line, image, *cells, target in table.drop_duplicates().itertuples(name=None):
        if target not in ("0", "1"):
            raise InputError(f"{path} line {line + 2}: Target is {target!r}, expected 0 or 1: fix the row")
        if targets.setdefault(image, target) != target:
            raise InputError(
                f"{path} line {line + 2}: Target of {image} is {target}, and {targets[image]} above: fix one"
            )
        box = read_box(path, line, _corners(cells), ", ".join(CORNERS))
        if (box is not None) != (target == "1"):
            said = "a box" if box else "no box"
            raise InputError(
                f"{path} line {line + 2}: {image} has Target {target} and {said}, expected a box if and only if Target "
                "is 1: fix the row"
            )
        if box:
            boxes.setdefault(image, []).append((0, box, line))
    return boxes


def _corners(cells: list[str]) -> list[str]:
    """Left, top, right and bottom of x, y, width and height; the same cells if they are no numbers."""
    try:
        x, y, width, height = map(float, cells)
    except ValueError:
        return cells
    return [repr(number) for number in (x, y, x + width, y + height)]


def _read_classes(path: UPath, targets: pd.Series) -> dict[str, str]:
    """The class of each film. targets: by film."""
    table = read_table(path, ["patientId", "class"]).drop_duplicates(["patientId", "class"])
    known = (OPACITY, ABNORMAL, NORMAL)
    target = table["patientId"].map(targets)
    wrong = table[
        ~table["class"].isin(known)
        | (target.notna() & ((target == "1") != (table["class"] == OPACITY)))
        | table["patientId"].duplicated()
    ]
    if len(wrong):
        raise InputError(
            f"{path} line {wrong.index[0] + 2}: the class of {wrong['patientId'].iloc[0]} is "
            f"{wrong['class'].iloc[0]!r}, expected one of {', '.join(known)}, the same in all rows of a film, the "
            "first one if and only if its Target is 1: use the tables of one release"
        )
    if lacking := sorted(set(targets.index) - set(table["patientId"])):
        raise InputError(f"{path} has no class of {len(lacking)} films, such as {lacking[0]}: get a fresh copy")
    return dict(zip(table["patientId"], table["class"], strict=True))
