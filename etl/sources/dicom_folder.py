"""The manifest of a folder of DICOM files: patient and view come from the tags, findings from a label table if given.

No identity leaves the files: hashes keyed with CHEXSCALE_SALT name patients and images, dates become the order of a
patient's studies, and paths stay out of the tables.
"""

import os
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.cluster.workers import SparkWorkers
from etl.contract.images.dicom_file import looks_like_dicom
from etl.contract.images.pixels import BadImage
from etl.contract.schema import NIH_FINDINGS
from etl.contract.storage import list_files, read_bytes
from etl.sources.dicom_tags import Tags, read_tags
from etl.sources.label_file import parse_cells, read_table
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.pseudonyms import hide, read_salt
from etl.sources.split import assign_split, own_split

# Tags come before the pixels; few files have so many tags that more must be read.
HEAD_BYTES = 1 << 20
FILES_PER_TASK = 256


def read_dicom_folder(source: UPath, settings: Etl, workers: SparkWorkers) -> Manifest:
    """Reads every file's tags on the workers, and the table settings.columns.label_file if it exists.

    The table's image column holds paths below the source or SOP Instance UIDs. If the table has columns for patient,
    follow-up, age, sex or view, they replace the tags. Without a table every finding is unknown. A file whose tags
    cannot be used is in the manifest with the reason. Raises InputError if the salt is missing, the table is faulty, or
    no DICOM file can be used.
    """
    salt, path = read_salt(), source / settings.columns.label_file
    name_of = partial(hide, salt=salt)
    files = list_files(source, ("",)).drop(index=settings.columns.label_file, errors="ignore")
    chunks = [list(files.path.iloc[start : start + FILES_PER_TASK]) for start in range(0, len(files), FILES_PER_TASK)]
    results = [tags for part in workers.map(_read_all, chunks, [len(c) for c in chunks], "DICOM tags") for tags in part]
    found = pd.Series(results, files.index, dtype=object).dropna()
    if found.empty:
        raise InputError(f"none of the {len(files)} files below {source} is DICOM: check --etl.source and --etl.format")
    usable = found.map(lambda result: isinstance(result, Tags))
    reasons = found[~usable].to_dict()
    tags = pd.DataFrame([vars(tags) for tags in found[usable]], found.index[usable], [f.name for f in fields(Tags)])
    again = tags.index[tags.instance.duplicated()]
    reasons |= dict.fromkeys(again, "duplicate: same SOP Instance UID as another file")
    tags = tags.drop(index=again)
    findings = settings.columns.findings or list(NIH_FINDINGS)
    unknown = np.full(len(findings), np.nan, np.float32)
    tags["findings"], own, tables, absent = [unknown] * len(tags), None, [], 0
    if path.is_file():
        tags, findings, own, absent = _with_table(tags, path, settings)
        tables = [path]
    reasons |= dict.fromkeys(tags.index[tags.patient == ""], "no PatientID")
    tags = tags[tags.patient != ""]
    if tags.empty:
        raise InputError(
            f"none of the {len(found)} DICOM files below {source} can be used, for example {found.index[0]}: "
            f"{reasons.get(found.index[0], 'not in the table')}"
        )
    rows = build_rows(
        source,
        images=tags.instance.map(name_of),
        patients=tags.patient.map(name_of),
        follow_up=_count_studies(tags),
        age=tags.age,
        sex=tags.sex,
        view=tags["view"],
        findings=tags.findings,
    )
    listed = files.loc[rows.index].set_axis(rows.image_id)
    rows = assign_split(rows, settings, None if own is None else own[rows.index])
    manifest = assemble(rows, listed, findings, tables, f"images below {source} can be used")
    # "file" keeps these hashes apart from those of instances: a file may be named after an SOP Instance UID.
    bad = files.loc[list(reasons)].assign(image_id=[name_of(f"file {name}") for name in reasons])
    bad = bad.assign(reason=list(reasons.values()), looked_at=True, patient_id="", split=None)
    return replace(
        manifest,
        images=pd.concat([manifest.images, bad], ignore_index=True),
        listed=len(rows) + len(bad) + absent,
        absent=absent,
        unlisted=len(files) - len(rows) - len(bad),
        identities=name_of("fingerprint of the salt"),
        # A tag may hold anything, even a name, so its words are counted without being shown.
        not_understood={what: {"": sum(words.values())} for what, words in manifest.not_understood.items()},
    )


def _count_studies(tags: pd.DataFrame) -> pd.Series:
    """Each study's position among its patient's, from 0: a date can identify the patient, a position cannot."""
    counted = tags.study_time.where(tags.study_time != "").astype(float).groupby(tags.patient).rank("dense") - 1
    return tags["follow_up"].where(tags["follow_up"] != "", counted) if "follow_up" in tags else counted


def _read_all(paths: list[str]) -> list[Tags | str | None]:
    """Each file's tags, the reason why they cannot be used, or None if the file is not DICOM."""
    return [_read_one(path) for path in paths]


def _read_one(path: str) -> Tags | str | None:
    try:
        head = read_bytes(path, HEAD_BYTES)
        if not looks_like_dicom(head):
            return None
        try:
            return read_tags(head)
        except BadImage as reason:
            return str(reason) if len(head) < HEAD_BYTES else read_tags(read_bytes(path))
    except BadImage as reason:
        return str(reason)
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno) if error.errno else error}"


def _with_table(
    tags: pd.DataFrame, path: UPath, settings: Etl
) -> tuple[pd.DataFrame, list[str], pd.Series | None, int]:
    """The tags of the table's files, with its columns; its findings; its split; how many of its rows have no file."""
    columns = settings.columns
    header = read_table(path, [columns.image])
    # columns.patient is set by default, but a table may lack that column: the tags name the patient too.
    roles = {role: getattr(columns, role) for role in ("patient", "follow_up", "age", "sex", "view", "split")}
    roles = {role: name for role, name in roles.items() if name and (role != "patient" or name in header)}
    table = read_table(path, [*roles.values(), *columns.findings])
    findings = columns.findings or [name for name in table.columns if name not in (columns.image, *roles.values())]
    if not findings:
        raise InputError(f"{path} has no column left for findings: name them with --etl.columns.findings")
    labels = parse_cells(table, findings, path, settings.uncertain, blank=float("nan"))
    paths = {**dict(zip(tags.instance, tags.index, strict=True)), **{name: name for name in tags.index}}
    table.index = pd.Index(table[columns.image].map(paths))
    twice = table.index[table.index.notna() & table.index.duplicated()]
    if len(twice):
        raise InputError(f"{path} names {twice[0]} twice, by its path or by its SOP Instance UID: keep one row")
    labels = pd.Series(labels, table.index)
    named = tags.index.intersection(table.index)
    if named.empty:
        raise InputError(
            f"none of the {len(table)} images in {path} is among the {len(tags)} DICOM files: expected paths below the "
            f"source or SOP Instance UIDs in its column {columns.image}"
        )
    tags = tags.loc[named].assign(findings=labels[named])
    for role, name in roles.items():
        if role != "split":
            tags[role] = table.loc[named, name]
    own = own_split(table.loc[named, roles["split"]], path) if "split" in roles else None
    return tags, findings, own, int(table.index.isna().sum())
