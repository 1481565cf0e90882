"""The manifest of PadChest (Bustos et al., "PadChest", Medical Image Analysis 66, 2020; arXiv 1901.07441).

PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv[.gz]   one row per image, as published
0/ to 54/                                                  the PNGs, as the archives unpack, or all in one folder

A cell of `Labels` is a list such as ['cardiomegaly', 'pleural effusion']. Physicians labelled 27% of the reports and a
recurrent network the others; `MethodLabel` says which. Labels are taken as they are printed, without the tree of terms
in which the paper orders them: an image with `loculated pleural effusion` counts as one without `pleural effusion`,
unless it has that label too.
"""

import ast
from collections import Counter

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.listing import list_files
from etl.contract.words import says_no_finding, says_nothing
from etl.sources.files import match_files
from etl.sources.label_file import describe_lacking, optional_column, read_table
from etl.sources.manifest import Manifest, assemble, build_rows
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

TABLE = "PADCHEST*.csv"
NEEDED = ["ImageID", "PatientID", "Labels"]
OPTIONAL = ["StudyDate_DICOM", "StudyID", "PatientBirth", "PatientSex_DICOM", "Projection", "MethodLabel"]
METHODS = {"physician": "Physician", "rnn": "RNN_model"}
UNCHANGED = "unchanged"
"""the report names no finding again that an earlier one had, so a label that is lacking says nothing"""
EXCLUDE = "EXCLUDE"
"""the projection of films that the authors exclude"""


def read_padchest(source: UPath, settings: Etl) -> Manifest:
    """Reads the table and locates the images without opening any.

    Findings are the labels of at least settings.labels.min_images images of the table, in alphabetical order, or those
    that settings.columns.findings names. A label that a report does not have is absent (0); it is unknown (NaN) if the
    cell is empty, has no label, or says `unchanged`. Images with a label of settings.labels.leave_out, those with the
    projection EXCLUDE, and those that another labeller than settings.labels.labeller has labelled are left out with the
    reason. The age is the year of the study minus that of the birth. Raises InputError for a missing or damaged table,
    a missing column, a cell that is no list of labels, rows of one image that differ, an unknown name of a finding, and
    a source that has none of the listed images.
    """
    path = find_table(source, TABLE, "PadChest's labels")
    table = read_table(path, NEEDED, OPTIONAL)
    notes = describe_lacking(table, OPTIONAL, path)
    table, repeats = drop_repeats(table, path, "ImageID")
    labels = _parse_labels(table["Labels"], path)
    reasons = _find_reasons(table, labels, settings)
    findings, left = _choose_findings(labels[reasons.isna()], settings, path)
    names = [name for name in findings if not says_no_finding(name)]
    study = optional_column(table, "StudyDate_DICOM")
    rows = build_rows(
        path,
        images=table["ImageID"],
        patients=table["PatientID"],
        follow_up=count_studies(table["PatientID"], study + " " + optional_column(table, "StudyID")),
        age=_ages(optional_column(table, "PatientBirth"), study),
        sex=optional_column(table, "PatientSex_DICOM"),
        view=optional_column(table, "Projection").replace(EXCLUDE, ""),
        findings=_encode(labels, names),
        strange_labels=_contradictions(labels),
    )
    rows = assign_split(rows, settings, None)
    files = list_files(source)
    rows["file"] = match_files(rows.image_id, files, path)
    notes += [*no_split(settings), *repeats, *left, *_describe_unknown(labels[reasons.isna()])]
    notes += describe_names(rows.image_id, rows.file)
    searched = f"images of {path.name} is below {source}: check --etl.source and --etl.format"
    manifest = assemble(rows, files, names, [path], searched, left_out=f"not listed in {path.name}", notes=notes)
    return leave_out(manifest, reasons.set_axis(table["ImageID"]))


def _parse_labels(cells: pd.Series, path: UPath) -> pd.Series:
    """Each cell as a tuple of labels, without blanks around them, empty ones and repeats."""
    meanings = {}
    for cell in cells.unique():
        try:
            said = [] if says_nothing(cell) else ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            said = None
        if not isinstance(said, list) or not all(isinstance(label, str) for label in said):
            raise InputError(
                f"{path} line {cells.index[cells == cell][0] + 2}: Labels is {cell:.80}, expected a list such as "
                "['cardiomegaly', 'pleural effusion']: get a fresh copy of the table"
            )
        meanings[cell] = tuple(dict.fromkeys(filter(None, (label.strip() for label in said))))
    return cells.map(meanings)


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


def _choose_findings(labels: pd.Series, settings: Etl, path: UPath) -> tuple[list[str], list[str]]:
    """The labels that become findings, and sentences on those that do not."""
    counts = Counter[str]()
    for said, number in labels.value_counts().items():
        counts.update(dict.fromkeys(said, number))
    del counts[UNCHANGED]
    counts = {name: number for name, number in counts.items() if not says_no_finding(name)}
    ordered = sorted(counts, key=str.casefold)
    if named := settings.columns.findings:
        if unknown := [name for name in named if name not in counts]:
            raise InputError(
                f"etl.columns.findings names {some(unknown)}, which no image of {path.name} has that is not left out; "
                f"it has {some(ordered, 300)}"
            )
        return named, [f"{counted(len(counts) - len(named), 'label is', 'labels are')} not in etl.columns.findings"]
    chosen = [name for name in ordered if counts[name] >= settings.labels.min_images]
    rare = sorted((name for name in ordered if name not in chosen), key=lambda name: -counts[name])
    if not chosen:
        raise InputError(
            f"{path}: no label has {settings.labels.min_images} images, the most frequent one is {rare[0]!r} with "
            f"{counts[rare[0]]}: lower etl.labels.min_images"
            if rare
            else f"{path}: no image has a finding: get a fresh copy of the table"
        )
    if not rare:
        return chosen, []
    images = labels.map(lambda said: not set(rare).isdisjoint(said)).sum()
    return chosen, [
        f"{counted(len(rare), 'label', 'labels')} of fewer than {settings.labels.min_images} images (in "
        f"{counted(images, 'image')}), such as {some(rare, 3)}, {'is' if len(rare) == 1 else 'are'} no finding: lower "
        "etl.labels.min_images, or name findings with --etl.columns.findings"
    ]


def _encode(labels: pd.Series, findings: list[str]) -> list[np.ndarray]:
    """float32 arrays of 1, 0 and NaN in the order of the findings; images with the same labels share one."""
    position = {name: index for index, name in enumerate(findings)}
    values = {}
    for said in labels.unique():
        blank = np.nan if not said or UNCHANGED in said else 0
        row = np.full(len(findings), blank, np.float32)
        row[[position[name] for name in said if name in position]] = 1
        values[said] = row
    return [values[said] for said in labels]


def _contradictions(labels: pd.Series) -> pd.Series:
    """Labels such as `normal beside nodule`; None for the others."""
    strange = {}
    for said in labels.unique():
        healthy = [name for name in said if says_no_finding(name)]
        others = [name for name in said if name not in (*healthy, UNCHANGED)]
        strange[said] = f"{healthy[0]} beside {others[0]}" if healthy and others else None
    return pd.Series([strange[said] for said in labels], labels.index, dtype=object)


def _ages(births: pd.Series, studies: pd.Series) -> pd.Series:
    """Whole years from the year of birth, such as 1930.0, to that of the study, such as 20140915; else the cell."""
    years = pd.to_numeric(studies.str[:4], errors="coerce") - pd.to_numeric(births, errors="coerce")
    known = years.notna() & (years % 1 == 0)
    return births.where(~known, years.where(known, 0).astype(int).astype(str))


def _describe_unknown(labels: pd.Series) -> list[str]:
    """Sentences on images of which labels are unknown."""
    nothing, unchanged = (labels.map(len) == 0).sum(), labels.map(lambda said: UNCHANGED in said).sum()
    notes = []
    if nothing:
        have = counted(nothing, "listed image has", "listed images have")
        notes.append(f"{have} no label, so all are unknown")
    if unchanged:
        are = counted(unchanged, "listed image is", "listed images are")
        notes.append(f"{are} called {UNCHANGED!r}: labels that are not named there are unknown")
    return notes
