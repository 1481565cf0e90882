"""The manifest of a folder of DICOM files: who and how from their tags, findings from a table where there is one.

No identity leaves the files: patients and images are named by keyed hashes (CHEXSCALE_SALT), dates become the order of
a patient's studies, and paths stay out of the tables.
"""

import os
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.dicom import Tags, looks_like_dicom, read_tags
from etl.images import BadImage
from etl.label_file import known_words, parse_cells, read_table
from etl.manifest import Manifest, assemble, build_rows
from etl.pseudonyms import hide, read_salt
from etl.schema import NIH_FINDINGS, SPLITS
from etl.shards import SparkWorkers
from etl.split import assign_split
from etl.storage import list_files, read_bytes

# Tags stand before the pixels; only few files have so many that more must be read.
HEAD_BYTES = 1 << 20
FILES_PER_TASK = 256


def read_dicom_folder(source: UPath, settings: Etl, workers: SparkWorkers) -> Manifest:
    """Reads every file's tags on the workers, and the table settings.columns.label_file where it exists.

    The table's image column holds paths below the source or SOP Instance UIDs; without a table no finding is known.
    A file whose tags cannot be used is in the manifest with the reason. Raises InputError without a salt, for what is
    wrong with the table, or where no file is DICOM.
    """
    salt, path = read_salt(), source / settings.columns.label_file
    files = list_files(source, ("",)).drop(index=settings.columns.label_file, errors="ignore")
    chunks = [list(files.path.iloc[start : start + FILES_PER_TASK]) for start in range(0, len(files), FILES_PER_TASK)]
    results = [tags for part in workers.map(_read_all, chunks, [len(c) for c in chunks], "DICOM tags") for tags in part]
    found = pd.DataFrame({"name": files.index, "result": results}, index=files.index)
    found = found[found.result.notna()]
    if found.empty:
        raise InputError(f"none of the {len(files)} files below {source} is DICOM: check --etl.source and --etl.format")
    good = found.result.map(lambda result: isinstance(result, Tags))
    tags = pd.DataFrame([vars(result) for result in found.result[good]], index=found.index[good])
    tags["image_id"] = tags.instance.map(partial(hide, salt=salt))
    reasons = found.result[~good].to_dict()
    again = tags[tags.image_id.duplicated()]
    reasons |= dict.fromkeys(again.index, "duplicate: same SOP Instance UID as another file")
    tags = tags.drop(index=again.index)

    rows = build_rows(
        source,
        images=tags.image_id,
        patients=tags.patient.map(partial(hide, salt=salt)),
        # The day of a study says who it is; its place among the patient's studies does not.
        follow_up=tags.groupby("patient").study_time.rank("dense").where(tags.study_time != "") - 1,
        age=tags.age,
        sex=known_words(tags.sex, ("F", "M")),
        view=known_words(tags["view"], ("PA", "AP", "LATERAL")),
        findings=[np.empty(0, np.float32)] * len(tags),
    )
    findings, own, tables = settings.columns.findings or list(NIH_FINDINGS), None, []
    if path.is_file():
        rows, findings, own = _with_table(rows, tags, path, settings)
        tables = [path]
    else:
        rows["findings"] = [np.full(len(findings), np.nan, np.float32)] * len(rows)
    listed = files.loc[rows.index].set_axis(rows.image_id)
    manifest = assemble(assign_split(rows, settings, own), listed, findings, tables, f"images below {source}")
    unlisted = len(files) - len(manifest.images) - len(reasons)
    bad = files.loc[list(reasons)].assign(
        image_id=[hide(name, salt) for name in reasons], reason=list(reasons.values()), patient_id="", split=None
    )
    images = pd.concat([manifest.images, bad], ignore_index=True)
    return replace(
        manifest, images=images, listed=manifest.listed + len(bad), unlisted=unlisted, paths_are_identities=True
    )


def _read_all(paths: list[str]) -> list[Tags | str | None]:
    """Of each file its tags, or why they cannot be used, or None for a file that is no DICOM."""
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
    rows: pd.DataFrame, tags: pd.DataFrame, path: UPath, settings: Etl
) -> tuple[pd.DataFrame, list[str], pd.Series | None]:
    """The rows that the table names with its findings; the vocabulary; the table's split where it has one."""
    columns = settings.columns
    named = {columns.image, *((columns.split,) if columns.split else ())}
    table = read_table(path, [*named, *columns.findings])
    findings = columns.findings or [name for name in table.columns if name not in named]
    table["findings of image"] = parse_cells(table, findings, path, settings.uncertain, blank=float("nan"))
    names = {**dict(zip(tags.instance, tags.index, strict=True)), **dict(zip(tags.index, tags.index, strict=True))}
    table.index = pd.Index(table[columns.image].map(names))
    table = table[table.index.notna()]
    if table.index.duplicated().any():
        twice = table.index[table.index.duplicated()][0]
        raise InputError(f"{path} names {twice} twice, by its path or by its SOP Instance UID: keep one row each")
    rows = rows.loc[rows.index.intersection(table.index)]
    table = table.loc[rows.index]
    own = known_words(table[columns.split].str.lower(), SPLITS) if columns.split else None
    return rows.assign(findings=table["findings of image"]), findings, own
