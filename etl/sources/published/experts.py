"""The manifest of Google's adjudicated labels of ChestX-ray14 films (Majkowska et al., Radiology 294, 2020).

test_labels.csv, validation_labels.csv   a row per film: Image Index, NIH's columns, and YES or NO for four findings; in
                                         the source or in one folder below it, such as four_findings_expert_labels/
images/*.png                             NIH's films, in any folder

They cover some 4,000 films, chosen so that the findings are frequent. The readers' own labels (individual_readers.csv)
and those of all 14 findings are not read. A table of both parts in one, with a column `Set Id` (test or val), is read
too.
"""

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.listing import list_files
from etl.sources.files import match_files
from etl.sources.manifest import Manifest, assemble
from etl.sources.published.nih import rows_of
from etl.sources.published.tables import describe_names, drop_repeats, find_table, find_tables
from etl.sources.split import assign_split, own_split
from etl.sources.tables.cells import UNCERTAIN
from etl.sources.tables.file import describe_lacking, read_table

PARTS = {"*validation_labels.csv": "val", "*test_labels.csv": "test"}
WHOLE = "google*nih*labels.csv"
FINDINGS = ["Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass"]
OPTIONAL = ["Follow-up #", "Patient Age", "Patient Gender", "View Position"]
SET = "Set Id"


def read_experts(source: UPath, settings: Etl) -> Manifest:
    """Reads the tables and locates the films without opening any.

    The films of validation_labels.csv are those to develop with, since there are no others: validation patients are
    taken from them by etl.val_fraction, the rest trains. HEDGE is uncertain, see settings.uncertain. Raises InputError
    for a missing or damaged table, a cell that is no label, a film twice, a patient in both parts, or no film at all.
    """
    whole = bool(find_tables(source, WHOLE))
    names = {WHOLE: ""} if whole else PARTS
    read = {find_table(source, name, "the experts' labels"): part for name, part in names.items()}
    needed = ["Image Index", "Patient ID", *FINDINGS, *[SET] * whole]
    rows, words, notes = [], [], []
    for path, part in read.items():
        table = read_table(path, needed, OPTIONAL)
        notes += describe_lacking(table, OPTIONAL, path)
        table, repeats = drop_repeats(table, path, "Image Index")
        notes += repeats
        rows.append(_read_labels(table, path, settings.uncertain))
        words.append(table[SET] if whole else pd.Series(part, table.index))
    paths = list(read)
    rows = pd.concat(rows, ignore_index=True)
    if (twice := rows.image_id[rows.image_id.duplicated()]).any():
        raise InputError(f"{twice.iloc[0]} is in both {paths[0]} and {paths[-1]}: keep one row per image")
    own = None
    if settings.split == "source":
        own = own_split(pd.concat(words, ignore_index=True).rename(SET), rows.patient_id, paths[0]).replace(
            "val", "train"
        )
        notes.append("there are no training films: those of the validation set are split into train and val")
    rows = assign_split(rows, settings, own)
    files = list_files(source)
    rows["file"] = match_files(rows.image_id, files, paths[0])
    notes += describe_names(rows.image_id, rows.file)
    searched = f"films of the experts' labels is below {source}: check --etl.source and --etl.format"
    return assemble(rows, files, list(FINDINGS), paths, searched, left_out="not listed in the tables", notes=notes)


def _read_labels(table: pd.DataFrame, path: UPath, uncertain: str) -> pd.DataFrame:
    """The rows of build_rows of one table."""
    meaning = {"YES": 1.0, "NO": 0.0, "HEDGE": UNCERTAIN[uncertain]}
    values = []
    for finding in FINDINGS:
        wrong = table[~table[finding].isin(meaning)]
        if len(wrong):
            raise InputError(
                f"{path} line {wrong.index[0] + 2}: {finding} is {wrong[finding].iloc[0]!r}, expected YES, NO or "
                "HEDGE: get a fresh copy of the table"
            )
        values.append(table[finding].map(meaning).to_numpy(np.float32))
    return rows_of(table, path, list(np.stack(values, axis=1)))
