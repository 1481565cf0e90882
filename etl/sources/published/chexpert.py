"""The manifest of a folder in the CheXpert layout (Irvin et al., "CheXpert", AAAI 2019).

train.csv, valid.csv     labels, one row per image; the 234 that radiologists labelled (valid.csv) are the test split
train/, valid/           patient00001/study1/view1_frontal.jpg; the tables' paths start one folder above the source

The full-resolution release comes in four parts, such as `CheXpert-v1.0 batch 2 (train 1)/patient00001/...`, with the
tables in the first part. They are read as they are, side by side below the source.
"""

import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.listing import list_files
from etl.contract.words import view_of
from etl.sources.files import match_files
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.split import assign_official, assign_split
from etl.sources.tables.cells import contradictions, parse_cells
from etl.sources.tables.file import describe_lacking, optional_column, read_table

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
OPTIONAL_COLUMNS = ("Frontal/Lateral", "AP/PA", "Age", "Sex")


def read_chexpert(source: UPath, settings: Etl) -> Manifest:
    """Reads both tables and locates the images without opening any.

    A blank cell means that the report does not mention the finding. It counts as absent, as in Irvin et al. A cell of
    -1 (uncertain) becomes what settings.uncertain says. Raises InputError for a missing table or column, a cell that is
    no label, a path that names no patient, or a source that has none of the listed images.
    """
    tables = [_find_table(source, "train.csv"), _find_table(source, "valid.csv")]
    (train_val, notes), (test, more_notes) = (_read_labels(path, settings.uncertain) for path in tables)
    rows = pd.concat([train_val, test], ignore_index=True)
    own = None
    if settings.split == "source":
        own = assign_official(rows, set(train_val.image_id), set(test.image_id), ("train.csv", "valid.csv"))
    rows = assign_split(rows, settings, own)
    files = list_files(source)
    rows["file"] = match_files(rows.image_id, files, tables[0])
    # In the release in parts, `train` is not a folder.
    parts = rows.image_id.str.split("/", n=1).str[-1]
    rows["file"] = rows.file.where(rows.file.notna(), match_files(parts[rows.file.isna()], files, tables[0]))
    searched = f"listed images is below {source}: check --etl.source and --etl.format"
    why = "listed neither in train.csv nor in valid.csv"
    return assemble(rows, files, list(CHEXPERT_FINDINGS), tables, searched, left_out=why, notes=notes + more_notes)


def _find_table(source: UPath, name: str) -> UPath:
    """The table in the source or, for the release in parts, in the one folder below it that has it."""
    if (source / name).is_file():
        return source / name
    found = sorted(source.glob(f"*/{name}"), key=str)
    if len(found) == 1:
        return found[0]
    where = ", ".join(str(file.parent) for file in found) or "none"
    raise InputError(
        f"no {name} in {source}, nor in exactly one folder below it (found: {where}); expected the folder with "
        "train.csv, valid.csv, train/ and valid/, or the folder with all parts `CheXpert-v1.0 batch ...`: check "
        "--etl.source and --etl.format"
    )


def _read_labels(path: UPath, uncertain: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows of build_rows, and sentences on what the table lacks."""
    table = read_table(path, ["Path", *CHEXPERT_FINDINGS])
    # CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, where the first folder is the source itself.
    images = table["Path"].str.replace("\\", "/").str.split("/", n=1).str[-1]
    patients = images.str.extract(r"(patient\d+)/")[0].fillna("")
    studies = pd.to_numeric(images.str.extract(r"/study(\d+)/")[0])
    frontal = optional_column(table, "Frontal/Lateral").map(view_of).ne("LATERAL")
    views = optional_column(table, "AP/PA")
    # Some films that are called frontal have the view LL or RL.
    views = views.mask(views.map(view_of).eq("LATERAL"), "Frontal " + views)
    findings = parse_cells(table, CHEXPERT_FINDINGS, path, uncertain, blank=0.0)
    rows = build_rows(
        path,
        images=images,
        patients=patients,
        follow_up=studies - 1,
        age=optional_column(table, "Age"),
        sex=optional_column(table, "Sex"),
        view=views.where(frontal, "LATERAL"),
        findings=findings,
        strange_labels=contradictions(table, CHEXPERT_FINDINGS, findings),
    )
    return rows, describe_lacking(table, OPTIONAL_COLUMNS, path)
