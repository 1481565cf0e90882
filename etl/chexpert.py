"""The manifest of a folder in the CheXpert layout (Irvin et al., "CheXpert", AAAI 2019).

train.csv, valid.csv     labels, one row per image; the radiologists' 234 in valid.csv are the test split here
train/, valid/           patient00001/study1/view1_frontal.jpg; the tables' paths start one folder above the source
"""

from pathlib import Path

import pandas as pd

from conf.settings import Etl
from etl.manifest import (
    Manifest,
    check_ids,
    known_words,
    optional_column,
    parse_ages,
    parse_cells,
    read_table,
    sha256_of,
    with_files,
)
from etl.split import assign_official

# Table -> whether its images test; validation is taken from the others by patient.
TABLES = {"train.csv": False, "valid.csv": True}
# All but "No Finding", which says that the others are absent.
CHEXPERT_FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)


def read_chexpert(source: Path, settings: Etl) -> Manifest:
    """Reads both tables and looks for the images; opens no image.

    A blank cell, a finding that the report does not mention, is absent, as in Irvin et al.; -1, uncertain, becomes what
    settings.uncertain says. Raises InputError for a missing table or column, a cell that is no label, a path that
    names no patient, or a source without any of the listed images.
    """
    rows = pd.concat([_read_labels(source / name, settings.uncertain) for name in TABLES], ignore_index=True)
    test = set(rows.image_id[rows.table.map(TABLES)])
    rows["split"] = assign_official(rows, set(rows.image_id) - test, test, settings.val_fraction, settings.seed)
    images, unlisted = with_files(source, rows.drop(columns="table"), (".jpg", ".jpeg", ".png"))
    return Manifest(
        images=images,
        findings=list(CHEXPERT_FINDINGS),
        listed=len(rows),
        absent=len(rows) - len(images),
        unlisted=unlisted,
        sha256=sha256_of(source / name for name in TABLES),
    )


def _read_labels(path: Path, uncertain: str) -> pd.DataFrame:
    table = read_table(path, ["Path", *CHEXPERT_FINDINGS])
    # CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg: the first folder is the source itself.
    images = table["Path"].str.split("/", n=1).str[-1]
    patients = images.str.extract(r"(patient\d+)/")[0].fillna("")
    check_ids(path, images, patients)
    studies = pd.to_numeric(images.str.extract(r"/study(\d+)/")[0]).astype("Int32")
    frontal = optional_column(table, "Frontal/Lateral").ne("Lateral")
    return pd.DataFrame(
        {
            "table": path.name,
            "image_id": images,
            "patient_id": patients,
            "follow_up": studies - 1,
            "age_years": parse_ages(optional_column(table, "Age")),
            "sex": known_words(optional_column(table, "Sex").str[:1], ("F", "M")),
            "view": known_words(optional_column(table, "AP/PA"), ("PA", "AP")).where(frontal, "LATERAL"),
            "findings": parse_cells(table, CHEXPERT_FINDINGS, path, uncertain, blank=0.0),
        }
    )
