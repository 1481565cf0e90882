"""The manifest of a folder of DICOM files: patient and view come from the tags, findings from a label table if given.

No identity leaves the files: hashes keyed with CHEXSCALE_SALT name patients and images, dates become the order of a
patient's studies, and paths stay out of the tables.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Columns, Dicom, Etl
from etl.cluster.workers import SparkWorkers
from etl.contract.images.dicom_file import looks_like_dicom
from etl.contract.images.dicom_tags import Tags, read_tags
from etl.contract.images.kinds import DICOM_INDEX
from etl.contract.images.misfits import find_misfit
from etl.contract.images.pixels import BadImage
from etl.contract.schema import NIH_FINDINGS
from etl.contract.storage import fetch_ahead, list_files, read_bytes
from etl.contract.words import says_nothing, shows_chest
from etl.sources.files import count_left_out, describe_links, describe_match, match_files
from etl.sources.label_file import (
    contradictions,
    normalise_patients,
    read_findings,
    read_table,
    refuse_rounded,
    table_path,
)
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.pseudonyms import hide, read_salt
from etl.sources.split import assign_split, own_split

# Tags come before the pixels; few files have so many tags that more must be read.
HEAD_BYTES = 1 << 20
FILES_PER_TASK = 256
NO_PATIENT = "no PatientID: a label table may name the patient, see --etl.columns.patient"


def read_dicom_folder(source: UPath, settings: Etl, workers: SparkWorkers) -> Manifest:
    """Reads every file's tags on the workers, and the table settings.columns.label_file if it exists.

    The table's image column holds paths below the source or SOP Instance UIDs. If the table has columns for patient,
    follow-up, age, sex or view, they replace the tags. Without a table every finding is unknown. A file whose tags
    cannot be used is in the manifest with the reason. Raises InputError if the salt is missing, the table is faulty, or
    no DICOM file can be used.
    """
    salt, path = read_salt(), table_path(source, settings.columns.label_file)
    name_of = partial(hide, salt=salt)
    listed = read_table(path, [settings.columns.image]) if path.is_file() else None
    files = list_files(source)
    files = files[files.path != str(path)]
    wanted = set() if listed is None else set(listed[settings.columns.image])
    # Other files are opened, to see whether they are DICOM.
    is_index = files.index.map(os.path.basename) == DICOM_INDEX
    asked = files[(files.clutter.isna() & ~is_index) | files.index.isin(wanted)]
    found = _read_files(asked.path, workers)
    if found.empty:
        raise InputError(f"none of the {len(files)} files below {source} is DICOM: check --etl.source and --etl.format")
    tags, faults, misfits = _sort_out(found, settings.dicom)
    findings = settings.columns.findings or list(NIH_FINDINGS)
    unknown = np.full(len(findings), np.nan, np.float32)
    tags["findings"], own, tables, absent, notes = [unknown] * len(tags), None, [], 0, ["there is no label table"]
    if listed is not None:
        tags, findings, own, table_files, notes = _with_table(tags, path, listed, settings, asked, found, name_of)
        absent, tables = int(table_files.isna().sum()), [path]
        faults |= dict.fromkeys(table_files[table_files.notna() & ~table_files.isin(found.index)], "no DICOM file")
    elif settings.columns.label_file != Columns().label_file:
        raise InputError(f"no label file at {path}: check --etl.source and --etl.columns.label_file")
    nobody = tags.patient.map(says_nothing).astype(bool)
    faults |= dict.fromkeys(tags.index[nobody], NO_PATIENT)
    tags, reasons = tags[~nobody], faults | misfits
    if tags.empty:
        kinds = Counter(reason.partition(":")[0] for reason in reasons.values()).most_common(5)
        raise InputError(
            f"none of the {len(found)} DICOM files below {source} can be used: "
            f"{', '.join(f'{number} {kind}' for kind, number in kinds) or 'none is in the table'}; for example "
            f"{found.index[0]}: {reasons.get(found.index[0], 'not in the table')}"
        )
    rows = _build_rows(tags, source, name_of)
    films = files.loc[rows.index].set_axis(rows.image_id)
    rows = assign_split(rows, settings, None if own is None else own[rows.index])
    notes = [*notes, *describe_links(files)]
    manifest = assemble(rows, films, findings, tables, f"images below {source} can be used", notes=notes)
    # "file" keeps these hashes apart from those of instances: a file may be named after an SOP Instance UID.
    bad = files.loc[list(reasons), ["path", "file_version"]].assign(
        image_id=[name_of(f"file {name}") for name in reasons]
    )
    bad = bad.assign(reason=list(reasons.values()), patient_id="", split=None)
    bad["looked_at"] = [name in faults for name in reasons]
    others = files.index.difference(tags.index).difference(list(reasons))
    why = pd.Series("no DICOM", others).mask(others.isin(found.index), f"not listed in {path.name}")
    return replace(
        manifest,
        images=pd.concat([manifest.images, bad], ignore_index=True),
        listed=len(rows) + len(bad) + absent,
        absent=absent,
        left_out=count_left_out(why, files.clutter),
        identities=name_of("fingerprint of the salt"),
        not_understood=_count_strange(manifest, tags),
    )


def _read_files(paths: pd.Series, workers: SparkWorkers) -> pd.Series:
    """What the workers find in each DICOM file: its Tags, or the reason why they cannot be used. Index: the files."""
    chunks = [list(paths.iloc[start : start + FILES_PER_TASK]) for start in range(0, len(paths), FILES_PER_TASK)]
    parts = workers.map(_read_all, chunks, [len(chunk) for chunk in chunks], "DICOM tags")
    return pd.Series([result for part in parts for result in part], paths.index, dtype=object).dropna()


def _sort_out(found: pd.Series, wanted: Dicom) -> tuple[pd.DataFrame, dict[str, str], dict[str, str]]:
    """The Tags of the films to read, a row per file; file -> its fault; file -> why it is none of these films."""
    usable = found.map(lambda result: isinstance(result, Tags))
    faults = found[~usable].to_dict()
    misfits = found[usable].map(partial(find_misfit, wanted=wanted)).dropna().to_dict()
    films = found[usable].drop(list(misfits))
    tags = pd.DataFrame([vars(film) for film in films], films.index, [field.name for field in fields(Tags)])
    tags["patient"] = normalise_patients(tags.patient.astype(str))
    # If several files have the same SOP Instance UID, the first one that names a patient counts, or else the first.
    named_first = tags.iloc[np.argsort(tags.patient.map(says_nothing).to_numpy(bool), kind="stable")]
    again = named_first.index[named_first.instance.duplicated()]
    faults |= dict.fromkeys(again, "duplicate: same SOP Instance UID as another file")
    return tags.drop(index=again), faults, misfits


def _build_rows(tags: pd.DataFrame, source: UPath, name_of: Callable[[str], str]) -> pd.DataFrame:
    """The rows of build_rows, and `file`, which is the image's hash, because paths stay out of the tables."""
    rows = build_rows(
        source,
        images=tags.instance.map(name_of),
        patients=tags.patient.map(name_of),
        follow_up=_count_studies(tags),
        age=tags.age,
        sex=tags.sex,
        view=tags["view"],
        findings=list(tags.findings),
        strange_labels=tags.get("strange_labels"),
    )
    return rows.assign(file=rows.image_id)


def _count_strange(manifest: Manifest, tags: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Manifest.not_understood without the words: a tag may hold anything, even a name."""
    strange = Counter({what: sum(words.values()) for what, words in manifest.not_understood.items()})
    strange["body part"] += int(tags.body_part[tags.body_part != ""].map(shows_chest).isna().sum())
    strange.update(tags.strange.explode().dropna())
    return {what: {"": number} for what, number in strange.items() if number}


def _count_studies(tags: pd.DataFrame) -> pd.Series:
    """Each study's position among its patient's, from 0: a date can identify the patient, a position cannot."""
    counted = tags.study_time.where(tags.study_time != "").astype(float).groupby(tags.patient).rank("dense") - 1
    return tags["follow_up"].where(tags["follow_up"] != "", counted) if "follow_up" in tags else counted


def _read_all(paths: list[str]) -> list[Tags | str | None]:
    """Each file's tags, the reason why they cannot be used, or None if the file is not DICOM."""
    return list(map(_read_one, paths, fetch_ahead(paths, HEAD_BYTES)))


def _read_one(path: str, read_head: Callable[[], bytes]) -> Tags | str | None:
    try:
        head = read_head()
        if not looks_like_dicom(head):
            return None
        try:
            return _with_instance(read_tags(head))
        except BadImage as reason:
            return str(reason) if len(head) < HEAD_BYTES else _with_instance(read_tags(read_bytes(path)))
    except BadImage as reason:
        return str(reason)
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno) if error.errno else error}"


def _with_instance(tags: Tags) -> Tags:
    """These tags. Raises BadImage without a SOP Instance UID, after which this format names the image."""
    if not tags.instance:
        raise BadImage("no SOPInstanceUID")
    return tags


def _with_table(
    tags: pd.DataFrame,
    path: UPath,
    listed: pd.DataFrame,
    settings: Etl,
    files: pd.DataFrame,
    results: pd.Series,
    name_of: Callable[[str], str],
) -> tuple[pd.DataFrame, list[str], pd.Series | None, pd.Series, list[str]]:
    """The tags of the table's files, with its columns; its findings; its split; the file of each of its rows, None if
    absent; and sentences on how it was understood.

    listed: the table with its images. files: all that it may name, from list_files. results: from _read_files.
    name_of: hides a name.
    """
    columns = settings.columns
    # columns.patient is set by default, but a table may lack that column: the tags name the patient too.
    roles = {role: getattr(columns, role) for role in ("patient", "follow_up", "age", "sex", "view", "split")}
    roles = {role: name for role, name in roles.items() if name and (role != "patient" or name in listed)}
    table = read_table(path, [*roles.values(), *columns.findings])
    table, findings, labels, notes = read_findings(table, [columns.image, *roles.values()], path, settings)
    strange = contradictions(table, findings, labels)
    names = table[columns.image]
    # Before they are hashed.
    refuse_rounded(path, names, "image")
    if "patient" in roles:
        refuse_rounded(path, table[roles["patient"]], "patient")
        table[roles["patient"]] = normalise_patients(table[roles["patient"]])
    usable = {result.instance: file for file, result in results.items() if isinstance(result, Tags)}
    # If several files have the same SOP Instance UID, the one in `tags` counts.
    found = names.map(usable | dict(zip(tags.instance, tags.index, strict=True)))
    by_path = match_files(names[found.isna()], files, path, found.dropna())
    notes += describe_match(names[by_path.index], by_path)
    found = found.where(found.notna(), by_path).astype(object)
    table.index = pd.Index(found)
    twice = found[found.notna() & found.duplicated()]
    if len(twice):
        one, other = names[found == twice.iloc[0]][:2]
        raise InputError(f"{path}: {one!r} and {other!r} are the same file, {twice.iloc[0]!r}: keep one row per image")
    labels, strange = pd.Series(labels, table.index), strange.set_axis(table.index)
    named = tags.index.intersection(table.index)
    if found.isna().all():
        raise InputError(
            f"none of the {len(table)} images in {path} is among the {len(files)} files: its column {columns.image} "
            f"says {names.iloc[0]!r}, a file is {files.index[0]!r}; expected paths below the source, or their ends, or "
            "SOP Instance UIDs"
        )
    tags = tags.loc[named].assign(findings=labels[named], strange_labels=strange[named])
    for role, name in roles.items():
        if role != "split":
            # A cell that says nothing leaves the tag.
            cells = table.loc[named, name]
            tags[role] = cells.mask(cells.map(says_nothing), tags[role]) if role in tags else cells
    # A message must not name a patient.
    own = own_split(table.loc[named, roles["split"]], tags.patient.map(name_of), path) if "split" in roles else None
    return tags, findings, own, found, notes
