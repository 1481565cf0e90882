"""The manifest of PadChest (Bustos et al., "PadChest", Medical Image Analysis 66, 2020; arXiv 1901.07441).

PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv[.gz]   one row per image, as published
0/ to 54/                                                  the PNGs, as the archives unpack, or all in one folder

A cell of `Labels` is a list such as ['cardiomegaly', 'pleural effusion']. Physicians labelled 27% of the reports and a
recurrent network the others; `MethodLabel` says which. Labels are taken as they are printed, without the tree of terms
in which the paper orders them: a report of `laminar atelectasis` seldom has `atelectasis` too. Where it has not, that
broader label is unknown. A label counts as broader if its words are the first or the last ones of the other.
"""

import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.listing import list_files
from etl.sources.files import match_files
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.published.padchest_labels import (
    choose_findings,
    contradictions,
    describe_unknown,
    encode,
    parse_labels,
)
from etl.sources.published.tables import (
    count_studies,
    describe_names,
    drop_repeats,
    find_table,
    leave_out,
    no_split,
    some,
)
from etl.sources.split import assign_split
from etl.sources.tables.file import describe_lacking, optional_column, read_table

TABLE = "PADCHEST*.csv"
NEEDED = ["ImageID", "PatientID", "Labels"]
OPTIONAL = ["StudyDate_DICOM", "StudyID", "PatientBirth", "PatientSex_DICOM", "Projection", "MethodLabel"]
METHODS = {"physician": "Physician", "rnn": "RNN_model"}
EXCLUDE = "EXCLUDE"
"""the projection of films that the authors exclude"""


def read_padchest(source: UPath, settings: Etl) -> Manifest:
    """Reads the table and locates the images without opening any.

    Findings are the labels of at least settings.labels.min_images images of the table, in alphabetical order, or those
    that settings.columns.findings names. A label that a report does not have is absent (0); it is unknown (NaN) if the
    cell is empty, has no label, says `unchanged`, or has a narrower label. Left out with the reason are images with a
    label of settings.labels.leave_out, those with the projection EXCLUDE, and those that another labeller than
    settings.labels.labeller has labelled. The age is the year of the study minus that of the birth. Raises InputError
    for a missing or damaged table, a missing column, a cell that is no list of labels, rows of one image that differ,
    an unknown name of a finding, and a source that has none of the listed images.
    """
    path = find_table(source, TABLE, "PadChest's labels")
    table = read_table(path, NEEDED, OPTIONAL)
    notes = describe_lacking(table, OPTIONAL, path)
    table, repeats = drop_repeats(table, path, "ImageID")
    labels = parse_labels(table["Labels"], path)
    reasons = _find_reasons(table, labels, settings)
    findings, left = choose_findings(labels[reasons.isna()], settings, path)
    values, narrower = encode(labels, findings)
    study = optional_column(table, "StudyDate_DICOM")
    rows = build_rows(
        path,
        images=table["ImageID"],
        patients=table["PatientID"],
        follow_up=count_studies(table["PatientID"], study + " " + optional_column(table, "StudyID")),
        age=_ages(optional_column(table, "PatientBirth"), study),
        sex=optional_column(table, "PatientSex_DICOM"),
        view=optional_column(table, "Projection").replace(EXCLUDE, ""),
        findings=values,
        strange_labels=contradictions(labels),
    )
    rows = assign_split(rows, settings, None)
    files = list_files(source)
    rows["file"] = match_files(rows.image_id, files, path)
    notes += [*no_split(settings), *repeats, *left, *narrower, *describe_unknown(labels[reasons.isna()])]
    notes += describe_names(rows.image_id, rows.file)
    searched = f"images of {path.name} is below {source}: check --etl.source and --etl.format"
    manifest = assemble(rows, files, findings, [path], searched, left_out=f"not listed in {path.name}", notes=notes)
    return leave_out(manifest, reasons.set_axis(table["ImageID"]))


def _find_reasons(table: pd.DataFrame, labels: pd.Series, settings: Etl) -> pd.Series:
    """Why each image is left out; None for the others."""
    reasons = pd.Series(None, table.index, dtype=object)
    if wanted := METHODS.get(settings.labels.labeller):
        method = optional_column(table, "MethodLabel")
        if not method.eq(wanted).any():
            raise InputError(
                f"no image has {wanted!r} in the column 'MethodLabel', found {some(method.unique())}: leave "
                "etl.labels.labeller empty"
            )
        reasons = reasons.mask(method != wanted, "labelled by " + method + ", not as etl.labels.labeller says")
    reasons = reasons.mask(optional_column(table, "Projection") == EXCLUDE, f"projection {EXCLUDE}")
    for label in settings.labels.leave_out:
        has = labels.map(lambda said, label=label: label in said).astype(bool)
        reasons = reasons.mask(has, f"labelled {label!r}, in etl.labels.leave_out")
    return reasons.where(reasons.notna(), None)


def _ages(births: pd.Series, studies: pd.Series) -> pd.Series:
    """Whole years from the year of birth, such as 1930.0, to that of the study, such as 20140915; else the cell."""
    years = pd.to_numeric(studies.str[:4], errors="coerce") - pd.to_numeric(births, errors="coerce")
    known = years.notna() & (years % 1 == 0)
    return births.where(~known, years.where(known, 0).astype(int).astype(str))
