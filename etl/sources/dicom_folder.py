"""The manifest of a folder of DICOM files: patient and view come from the tags, findings from a label table if given.

No identity leaves the files: hashes keyed with CHEXSCALE_SALT name patients and images, dates become the order of a
patient's studies, and paths stay out of the tables.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Columns, Etl
from conf.words import counted
from etl.cluster.workers import SparkWorkers
from etl.contract.images.dicom.tags import Tags
from etl.contract.images.kinds import DICOM_INDEX
from etl.contract.listing import list_files
from etl.contract.schema import NIH_FINDINGS
from etl.contract.words import says_nothing, shows_chest
from etl.sources.dicom_files import DUPLICATE, read_files, sort_out
from etl.sources.files import count_left_out, describe_links, describe_match, match_files
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.pseudonyms import hide, read_salt
from etl.sources.split import assign_split, describe_unnamed_split, own_split
from etl.sources.tables.cells import contradictions, normalise_patients, read_findings, refuse_rounded
from etl.sources.tables.file import describe_unread, read_table, table_path

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
    found = read_files(asked.path, workers)
    if found.empty:
        raise InputError(f"none of the {len(files)} files below {source} is DICOM: check --etl.source and --etl.format")
    copies = set() if listed is None else _named_copies(listed[settings.columns.image], path, asked, found)
    tags, faults, misfits = sort_out(found, settings.dicom, copies)
    findings = settings.columns.findings or list(NIH_FINDINGS)
    unknown = np.full(len(findings), np.nan, np.float32)
    tags["findings"], own, tables, absent, notes = [unknown] * len(tags), None, [], 0, ["there is no label table"]
    if listed is not None:
        tags, findings, own, table_files, notes = _with_table(tags, path, listed, settings, asked, found, name_of)
        absent, tables = int(table_files.isna().sum()), [path]
        # A copy that no row names is left out like any other film.
        faults = {file: reason for file, reason in faults.items() if reason != DUPLICATE or file in set(table_files)}
        faults |= dict.fromkeys(table_files[table_files.notna() & ~table_files.isin(found.index)], "no DICOM file")
    elif settings.split == "source":
        notes += describe_unnamed_split(pd.DataFrame(), pd.Series(tags.index, dtype=str))
    if listed is None and settings.columns.label_file != Columns().label_file:
        raise InputError(f"no label file at {path}: check --etl.source and --etl.columns.label_file")
    _refuse_shared_instances(len(tags), faults, found, source, settings)
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


def _named_copies(names: pd.Series, path: UPath, files: pd.DataFrame, results: pd.Series) -> set[str]:
    """The files that a table names by path, of those that share a SOP Instance UID which it does not name."""
    instances = {file: result.instance for file, result in results.items() if isinstance(result, Tags)}
    counts, named = Counter(instances.values()), set(names)
    if len(counts) == len(instances):
        return set()
    taken = [file for file, instance in instances.items() if instance in named]
    by_path = match_files(names[~names.isin(counts)].drop_duplicates(), files, path, taken).dropna()
    return {file for file in by_path if counts[instances.get(file)] > 1 and instances[file] not in named}


def _refuse_shared_instances(
    num_films: int, faults: dict[str, str], results: pd.Series, source: UPath, settings: Etl
) -> None:
    """Raises InputError if more files share their SOP Instance UID with one of the films than may be quarantined."""
    again = [file for file, reason in faults.items() if reason == DUPLICATE]
    if len(again) > settings.max_quarantined_fraction * (num_films + len(faults)):
        instances = {file: result.instance for file, result in results.items() if isinstance(result, Tags)}
        other = next(file for file in instances if file != again[0] and instances[file] == instances[again[0]])
        raise InputError(
            f"{len(again)} of {num_films + len(faults)} DICOM files below {source} have the SOP Instance UID of another"
            f" one, such as {again[0]!r} and {other!r}: give each film its own SOPInstanceUID, or, if these are copies,"
            " remove them or raise etl.max_quarantined_fraction"
        )


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

    listed: the table with its images. files: all that it may name, from list_files. results: from read_files.
    name_of: hides a name.
    """
    columns = settings.columns
    roles = {role: getattr(columns, role) for role in ("patient", "follow_up", "age", "sex", "view", "split")}
    # columns.patient is set by default, but a table may lack that column: the tags name the patient too.
    lacks_patient = columns.patient == Columns().patient and columns.patient not in listed
    roles = {role: name for role, name in roles.items() if name and not (role == "patient" and lacks_patient)}
    table = read_table(path, [*roles.values(), *columns.findings])
    table, findings, labels, notes = read_findings(table, [columns.image, *roles.values()], path, settings)
    if lacks_patient:
        notes.append(f"{path.name} has no column {columns.patient!r}: the patients are those of the tags")
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
            if role == "patient":
                cells = _complete(cells, tags.patient, path)
            tags[role] = cells.mask(cells.map(says_nothing), tags[role]) if role in tags else cells
    # A message must not name a patient.
    own = own_split(table.loc[named, roles["split"]], tags.patient.map(name_of), path) if "split" in roles else None
    used = (columns.image, *roles.values(), *findings)
    unread = [name for name in table if name not in used and not name.startswith("Unnamed: ")]
    notes += describe_unread(unread)
    if own is None and settings.split == "source":
        notes += describe_unnamed_split(table[unread], pd.Series(named, dtype=str))
    return tags, findings, own, found, notes


def _complete(cells: pd.Series, patients: pd.Series, path: UPath) -> pd.Series:
    """The cells of a table's patients, also for the rows without one whose tag has a patient in other rows.

    patients: those of the tags. One person would else have two names, and so be in two splits. Raises InputError if
    other rows name several patients.
    """
    is_open, is_tagged = cells.map(says_nothing).astype(bool), ~patients.map(says_nothing).astype(bool)
    known = cells[~is_open & is_tagged].groupby(patients).agg(["nunique", "first"])
    asked = patients[is_open & is_tagged & patients.isin(known.index)]
    unclear = asked[asked.map(known["nunique"]) > 1]
    if len(unclear):
        # A message must not name a patient.
        raise InputError(
            f"{path}: {counted(len(unclear), 'row')}, such as that of {unclear.index[0]!r}, "
            f"{'has' if len(unclear) == 1 else 'have'} no patient in the column {cells.name!r}, and other rows name "
            "several patients for the same PatientID tag: fill the column"
        )
    return cells.mask(cells.index.isin(asked.index), patients.map(known["first"]))
