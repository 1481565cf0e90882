"""The tables of VinDr-CXR, of either release: what each reader says of each film, and the boxes."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from etl.contract.words import says_no_finding
from etl.sources.published.boxes import read_box
from etl.sources.published.tables import drop_repeats, find_table, optional_table, refuse_blank
from etl.sources.tables.cells import contradictions, parse_cells
from etl.sources.tables.file import read_table

LABELS, BOXES, KAGGLE = "image_labels_{}.csv", "annotations_{}.csv", "train.csv"
CORNERS = ["x_min", "y_min", "x_max", "y_max"]
CONSENSUS = "consensus"
"""the reader of the test set's rows, which several radiologists agreed upon"""
ONE_NAME = {"Other disease": "Other diseases"}
"""name in the test set's table -> name in the training set's, for the one column where they differ"""
# The classes of Kaggle's competition beside `No finding`; its table has names only where there is a box.
KAGGLE_FINDINGS = ("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD")
KAGGLE_FINDINGS += ("Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion")
KAGGLE_FINDINGS += ("Pleural thickening", "Pneumothorax", "Pulmonary fibrosis")


class Read(NamedTuple):
    """What the tables say."""

    votes: pd.DataFrame
    """as in join_readers: indexed by the film and the reader, a column per finding"""
    boxes: pd.DataFrame
    """image, reader, finding, box (from read_box), path and line, a row per box"""
    tables: list[UPath]
    """the first one names the films"""
    split: dict[str, str]
    """train or test of each image; empty if the release has no test set"""
    strange: dict[str, str]
    """image -> labels of one reader that contradict each other"""
    notes: list[str]


def read_votes(source: UPath) -> Read:
    """What the tables say. Raises InputError as read_vindr does."""
    labels = {split: table for split in ("train", "test") if (table := optional_table(source, LABELS.format(split)))}
    return _read_physionet(source, labels) if labels else _read_kaggle(find_table(source, KAGGLE, "VinDr-CXR's labels"))


def _read_physionet(source: UPath, labels: dict[str, UPath]) -> Read:
    votes, boxes, tables, split, strange, notes = [], [], [], {}, {}, []
    for part, path in labels.items():
        table = read_table(path, ["image_id", "No finding"]).rename(columns=ONE_NAME)
        if part == "train" and "rad_id" not in table:
            raise InputError(f"{path} lacks the column 'rad_id': found {list(table.columns)}: get a fresh copy")
        refuse_blank(table, path, [name for name in ("image_id", "rad_id") if name in table])
        readers = table["rad_id"] if "rad_id" in table else pd.Series(CONSENSUS, table.index)
        findings = [name for name in table if name not in ("image_id", "rad_id") and not says_no_finding(name)]
        if votes and set(findings) != set(votes[0]):
            raise InputError(
                f"{path} has other findings than {tables[0].name}, such as "
                f"{min(set(findings) ^ set(votes[0]))!r}: use the tables of one release"
            )
        by = ("reading", "readings")
        table, repeats = drop_repeats(table.assign(reading=table["image_id"] + " " + readers), path, "reading", by)
        values = parse_cells(table, findings, path, "unknown", blank=np.nan)
        index = pd.MultiIndex.from_arrays([table["image_id"], readers[table.index]])
        votes.append(pd.DataFrame(np.stack(values), index, findings))
        beside = contradictions(table, findings, values).set_axis(table["image_id"]).dropna()
        strange |= beside.to_dict()
        if both := split.keys() & set(table["image_id"]):
            raise InputError(f"{path}: {min(both)} is in {tables[0].name} too: a film may be in one split only")
        split |= dict.fromkeys(table["image_id"], part)
        tables.append(path)
        notes += repeats
        if (file := optional_table(source, BOXES.format(part))) is not None:
            boxes.append(_read_boxes(file, findings, set(table["image_id"])))
            tables.append(file)
    parts = [part[votes[0].columns] for part in votes]
    return Read(pd.concat(parts), _join_boxes(boxes), tables, split, strange, notes)


def _read_kaggle(path: UPath) -> Read:
    table = read_table(path, ["image_id", "class_name", "rad_id", *CORNERS])
    refuse_blank(table, path, ["image_id", "rad_id"])
    boxes = _read_boxes(path, KAGGLE_FINDINGS, None, table)
    index = pd.MultiIndex.from_arrays([table["image_id"], table["rad_id"]])
    says = pd.DataFrame(
        {name: (table["class_name"] == name).to_numpy(np.float32) for name in (*KAGGLE_FINDINGS, "No finding")}, index
    )
    votes = says.groupby(level=[0, 1], sort=False).max()
    healthy = votes.pop("No finding") == 1
    beside = votes[healthy & (votes.max(axis=1) == 1)]
    strange = {image: f"No finding beside {row.idxmax()}" for (image, _), row in beside.iterrows()}
    return Read(votes, boxes, [path], {}, strange, [])


def _read_boxes(
    path: UPath, findings: Iterable[str], images: set[str] | None, table: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The boxes of a table, see Read. images: those that the label table names; None: any."""
    table = (read_table(path, ["image_id", "class_name", *CORNERS]) if table is None else table).drop_duplicates()
    readers = table["rad_id"] if "rad_id" in table else pd.Series(CONSENSUS, table.index)
    names = table["class_name"].replace(ONE_NAME)
    known = set(findings)
    unknown = names[~names.isin(known) & ~names.map({name: says_no_finding(name) for name in names.unique()})]
    if len(unknown):
        raise InputError(
            f"{path} line {unknown.index[0] + 2}: class_name is {unknown.iloc[0]!r}, which is no finding of the "
            f"release ({', '.join(sorted(known))}): use the tables of one release, or fix the row"
        )
    if images is not None and len(others := table[~table["image_id"].isin(images)]):
        raise InputError(
            f"{path} line {others.index[0] + 2}: {others['image_id'].iloc[0]} is not in the table of labels beside it: "
            "use the tables of one release"
        )
    cells = table[CORNERS].to_numpy(object)
    read = [
        (image, reader, name, box, path, line)
        for line, image, reader, name, corners in zip(
            table.index, table["image_id"], readers, names, cells, strict=True
        )
        if (box := read_box(path, line, corners, ", ".join(CORNERS))) is not None and name in known
    ]
    return _join_boxes([pd.DataFrame(read, columns=["image", "reader", "finding", "box", "path", "line"])])


def _join_boxes(parts: list[pd.DataFrame]) -> pd.DataFrame:
    empty = pd.DataFrame(columns=["image", "reader", "finding", "box", "path", "line"])
    return pd.concat(parts, ignore_index=True) if parts else empty
