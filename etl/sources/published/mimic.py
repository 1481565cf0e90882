"""The manifest of MIMIC-CXR-JPG (Johnson et al., arXiv 1901.07042), releases 2.0.0 and 2.1.0, as PhysioNet gives it.

mimic-cxr-2.0.0-metadata.csv   a row per film: dicom_id, subject_id, study_id, ViewPosition, StudyDate, StudyTime
mimic-cxr-2.0.0-split.csv      the official split by patient: train, validate, test; not needed with another etl.split
mimic-cxr-2.0.0-chexpert.csv   labels, a row per study, by CheXpert's labeller; mimic-cxr-2.0.0-negbio.csv by NegBio
files/p10/p10000032/s50414267/DICOM_ID.jpg

Each may have .gz behind its name. All films of a study share its labels. The tables say neither age nor sex. The
radiologists' labels of the test set (mimic-cxr-2.1.0-test-set-labeled.csv) are not read.
"""

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.listing import list_files
from etl.sources.files import describe_match, match_files
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.published.chexpert import CHEXPERT_FINDINGS
from etl.sources.published.tables import count_studies, drop_repeats, find_table, refuse_blank
from etl.sources.split import assign_split, own_split
from etl.sources.tables.cells import contradictions, parse_cells
from etl.sources.tables.file import describe_lacking, optional_column, read_table

TABLE = "mimic-cxr-2.*-{}.csv"
OPTIONAL = ["ViewPosition", "StudyDate", "StudyTime"]


def read_mimic(source: UPath, settings: Etl) -> Manifest:
    """Reads the tables, joins the labels of each study to its films, and locates these without opening any.

    settings.labels.labeller chooses the table of labels. A blank cell means that the report does not mention the
    finding. It counts as absent, as in CheXpert (Irvin et al. 2019); -1 becomes what settings.uncertain says. A study
    without a row has unknown labels. Raises InputError for a missing or damaged table, a cell that is no label, a study
    of two patients, rows of one study that differ, a patient in two splits, or a source without any of the films.
    """
    films = _find(source, "metadata")
    table = read_table(films, ["dicom_id", "subject_id", "study_id"], OPTIONAL)
    notes = describe_lacking(table, OPTIONAL, films)
    refuse_blank(table, films, ["dicom_id", "subject_id", "study_id"])
    table, repeats = drop_repeats(table, films, "dicom_id")
    labels_of, strange_of, labels, more = _read_labels(source, settings, table)
    unknown = np.full(len(CHEXPERT_FINDINGS), np.nan, np.float32)
    subject, study = table["subject_id"], table["study_id"]
    time = optional_column(table, "StudyDate") + " " + optional_column(table, "StudyTime").str.zfill(10)
    empty = pd.Series("", table.index)
    rows = build_rows(
        films,
        images="files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + table["dicom_id"] + ".jpg",
        patients=subject,
        follow_up=count_studies(subject, time + " " + study),
        age=empty,
        sex=empty,
        view=optional_column(table, "ViewPosition"),
        findings=[labels_of.get(name, unknown) for name in study],
        strange_labels=pd.Series([strange_of.get(name) for name in study], table.index, dtype=object),
    )
    own, tables = None, [films, labels]
    if settings.split == "source":
        split = _find(source, "split")
        tables.append(split)
        own, lacking = _read_split(split, table)
        more += lacking
    rows = assign_split(rows, settings, own)
    files = list_files(source)
    rows["file"] = match_files(rows.image_id, files, films)
    without = int((~study.isin(labels_of.keys())).sum())
    if without:
        more.append(f"{counted(without, 'film is', 'films are')} of studies without labels, so all are unknown")
    notes += [*repeats, *more, *describe_match(rows.image_id, rows.file)]
    searched = f"films of {films.name} is below {source}: check --etl.source and --etl.format"
    return assemble(
        rows, files, list(CHEXPERT_FINDINGS), tables, searched, left_out=f"not listed in {films.name}", notes=notes
    )


def _find(source: UPath, name: str) -> UPath:
    return find_table(source, TABLE.format(name), f"MIMIC-CXR-JPG's {name}")


def _read_labels(
    source: UPath, settings: Etl, films: pd.DataFrame
) -> tuple[dict[str, np.ndarray], dict[str, str], UPath, list[str]]:
    """Study -> its labels, as parse_cells gives them; study -> a contradiction; their table; and sentences on it.

    films: the table of films. Raises InputError if a study has another patient there.
    """
    path = _find(source, settings.labels.labeller or "chexpert")
    table = read_table(path, ["study_id", "subject_id", *CHEXPERT_FINDINGS], ["No Finding"])
    table, repeats = drop_repeats(table, path, "study_id", ("study", "studies"))
    patients = dict(zip(films["study_id"], films["subject_id"], strict=True))
    for names, where in ((films, "the films"), (table, path.name)):
        known = names["study_id"].map(patients)
        wrong = names[known.notna() & (known != names["subject_id"])]
        if len(wrong):
            study, subject = wrong[["study_id", "subject_id"]].iloc[0]
            raise InputError(
                f"{path} and the table of films do not belong together: study {study} is of patient {subject} in "
                f"{where} (line {wrong.index[0] + 2}), and of {patients[study]} elsewhere: use tables of one release"
            )
    values = parse_cells(table, CHEXPERT_FINDINGS, path, settings.uncertain, blank=0.0)
    strange = contradictions(table, CHEXPERT_FINDINGS, values).set_axis(table["study_id"]).dropna()
    return dict(zip(table["study_id"], values, strict=True)), strange.to_dict(), path, repeats


def _read_split(path: UPath, films: pd.DataFrame) -> tuple[pd.Series, list[str]]:
    """The split of each film, None if the table has none, and a sentence on such films."""
    table = read_table(path, ["dicom_id", "split"], [])
    table, repeats = drop_repeats(table, path, "dicom_id")
    cells = films["dicom_id"].map(table.set_index("dicom_id")["split"]).fillna("").rename("split")
    without = int((cells == "").sum())
    if without == len(cells):
        raise InputError(
            f"{path} has the split of none of the {len(cells)} films, such as {films['dicom_id'].iloc[0]}: use the "
            "tables of one release, or choose --etl.split hashed"
        )
    lacking = f"{path.name} has no split of {counted(without, 'film')}, so these are left out"
    return own_split(cells, films["subject_id"], path), [*repeats, *[lacking] * bool(without)]
