"""The manifest of a folder in the CheXpert layout (Irvin et al., "CheXpert", AAAI 2019).

train.csv, valid.csv     labels, one row per image; the 234 that radiologists labelled (valid.csv) are the test split
train/, valid/           patient00001/study1/view1_frontal.jpg; the tables' paths start one folder above the source
"""

import pandas as pd
from upath import UPath

from conf.settings import Etl
from etl.contract.storage import list_files
from etl.sources.label_file import optional_column, parse_cells, read_table
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.split import assign_official, assign_split

IMAGE_FILES = (".jpg", ".jpeg", ".png")
# All label columns except "No Finding", which only says that the others are absent.
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


def read_chexpert(source: UPath, settings: Etl) -> Manifest:
    """Reads both tables and locates the images without opening any.

    A blank cell means that the report does not mention the finding. It counts as absent, as in Irvin et al. A cell of
    -1 (uncertain) becomes what settings.uncertain says. Raises InputError for a missing table or column, a cell that is
    no label, a path that names no patient, or a source that has none of the listed images.
    """
    tables = [source / "train.csv", source / "valid.csv"]
    train_val, test = (_read_labels(path, settings.uncertain) for path in tables)
    rows = pd.concat([train_val, test], ignore_index=True)
    own = None
    if settings.split == "source":
        own = assign_official(rows, set(train_val.image_id), set(test.image_id))
    rows = assign_split(rows, settings, own)
    searched = f"listed images is below {source}: check --etl.source and --etl.format"
    return assemble(rows, list_files(source, IMAGE_FILES), list(CHEXPERT_FINDINGS), tables, searched)


def _read_labels(path: UPath, uncertain: str) -> pd.DataFrame:
    table = read_table(path, ["Path", *CHEXPERT_FINDINGS])
    # CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, where the first folder is the source itself.
    images = table["Path"].str.split("/", n=1).str[-1]
    patients = images.str.extract(r"(patient\d+)/")[0].fillna("")
    studies = pd.to_numeric(images.str.extract(r"/study(\d+)/")[0])
    frontal = optional_column(table, "Frontal/Lateral").ne("Lateral")
    return build_rows(
        path,
        images=images,
        patients=patients,
        follow_up=studies - 1,
        age=optional_column(table, "Age"),
        sex=optional_column(table, "Sex"),
        view=optional_column(table, "AP/PA").where(frontal, "LATERAL"),
        findings=parse_cells(table, CHEXPERT_FINDINGS, path, uncertain, blank=0.0),
    )
