"""Assigns patients to splits, and checks that no patient is in two."""

import hashlib
import shlex

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.schema import SPLITS
from etl.contract.storage import locate
from etl.contract.words import UNKNOWN, known_splits, split_of, understand
from etl.sources.tables.file import read_lines

OFFICIAL_LISTS = ("train_val_list.txt", "test_list.txt")
SEE_PATHS = " (dicom_paths.csv in the workspace of an earlier run has the names of DICOM files)"
HASHED = "no split column is named: a hash of the patient chooses the split"
NO_PATIENTS = "nothing names patients: each image counts as a patient of its own, so one person may be in two splits"
NEITHER = f"nothing names splits: a hash chooses them; {NO_PATIENTS}"
"""sentences on a source that does not say which images belong to one person, and which to one split"""
LISTS = {split: f"{split}_list.txt" for split in SPLITS}


def assign_split(rows: pd.DataFrame, settings: Etl, own: pd.Series | None) -> pd.DataFrame:
    """Adds the `split` of each row as settings.split says; None for an image in no split.

    rows: from build_rows. own: the source's own split; None if it has none, so that `source` means hashed. If the
    source's split has no validation images, settings.val_fraction of its training patients become validation.
    Raises InputError for a patient in two splits of the lists, or lists that cannot be read.
    """
    if settings.split == "lists":
        return assign_listed(rows, locate(settings.split_lists), SEE_PATHS * (settings.format == "dicom"))
    if settings.split == "hashed" or own is None:
        own = assign_hashed(
            rows.patient_id, settings.val_fraction, settings.test_fraction, settings.seed, settings.test_fold
        )
    elif not own.eq("val").any():
        # By a hash, so that a patient keeps the split when other patients are added.
        validates = _hash_places(rows.patient_id, settings.seed) < settings.val_fraction
        own = own.mask(own.eq("train") & validates, "val")
    return rows.assign(split=own)


def own_split(cells: pd.Series, patients: pd.Series, path: UPath) -> pd.Series:
    """The split column of a table in the contract's words; None for an empty cell.

    Raises InputError for a word that is not known, because its images would leave the table, and for a patient in two
    splits.
    """
    own, strange = understand(cells, split_of)
    if strange.notna().any():
        words = ", ".join(f"{number} {word!r}" for word, number in strange.value_counts().items())
        raise InputError(
            f"{path}: the column {cells.name!r} holds splits that are not known: {words}; known are {known_splits()}: "
            "rename them, or leave etl.columns.split empty for a split by patient"
        )
    known = pd.DataFrame({"patient_id": patients, "split": own}).dropna()
    leaks = find_leaks(known)
    if leaks:
        one, other, *_ = known[known.patient_id == leaks[0]].drop_duplicates().index
        where = f"lines {one + 2} and {other + 2}" if isinstance(one, int) else f"the rows of {one!r} and {other!r}"
        raise InputError(
            f"{path}: {counted(len(leaks), 'patient is', 'patients are')} in more than one split, such as {leaks[0]} "
            f"in {where}: fix the column {cells.name!r}, or leave etl.columns.split empty for a split by patient"
        )
    return own


def assign_official(
    manifest: pd.DataFrame, train_val: set[str], test: set[str], names: tuple[str, str] = OFFICIAL_LISTS
) -> pd.Series:
    """The split of the official lists, before assign_split takes validation from train.

    manifest: columns image_id and patient_id. Returns train, test, and None for an image in neither list.
    Raises InputError for a patient (or an image) on both lists.
    """
    in_test = manifest.image_id.isin(test)
    in_train_val = manifest.image_id.isin(train_val)
    both = set(manifest.patient_id[in_test]) & set(manifest.patient_id[in_train_val])
    if both:
        patient = min(both)
        of_patient = manifest.patient_id == patient
        one, other = (manifest.image_id[of_patient & where].iloc[0] for where in (in_train_val, in_test))
        raise InputError(
            f"{counted(len(both), 'patient has', 'patients have')} images in both {' and '.join(names)}, such as "
            f"{patient} with {one} in the first and {other} in the second: a patient may be in one split only, so "
            "leave the patient in one of them"
        )
    split = pd.Series(None, index=manifest.index, dtype=object)
    split[in_train_val] = "train"
    split[in_test] = "test"
    return split


def describe_unlisted(images: pd.Series, listed: set[str], name: str, hint: str = "") -> list[str]:
    """A sentence on names of a list that are no image of the label file; empty if there are none.

    hint: where the names of the images are. Raises InputError if no name of the list is one.
    """
    unknown = listed.difference(images)
    if listed and len(unknown) == len(listed):
        raise InputError(
            f"none of the {len(listed):,} names in {name}, such as {min(listed)!r}, is an image of the source, "
            f"such as {images.iloc[0]!r}: write them alike{hint}"
        )
    example = f", such as {min(unknown)!r}" if unknown else ""
    said = counted(len(unknown), f"name in {name} is no image", f"names in {name} are no image")
    return [f"{said} of the source{example}{hint}"] if unknown else []


def assign_hashed(
    patients: pd.Series, val_fraction: float, test_fraction: float, seed: int, test_fold: int = 0
) -> pd.Series:
    """Assigns train, val or test by a hash of seed and patient: a patient keeps the split when others are added.

    test_fraction: share of all patients. val_fraction: share of the remaining patients. Both are 0..1. test_fold: which
    of the 1 / test_fraction parts of all patients is the test split, from 0; the validation split is in the next ones.
    """
    places = (_hash_places(patients, seed) - test_fold * test_fraction) % 1
    split = pd.Series("train", index=patients.index)
    split[places < test_fraction + (1 - test_fraction) * val_fraction] = "val"
    split[places < test_fraction] = "test"
    return split


def assign_listed(rows: pd.DataFrame, folder: UPath, hint: str = "") -> pd.DataFrame:
    """The rows with the split of the lists, and with their labels as findings if the lists have labels.

    A line names an image, followed by nothing or by a 0 or 1 per finding, as in the lists that the reproductions of
    CheXNet share (Rajpurkar et al. 2017; labels of NIH's first release). hint: where the names of the images are, for
    messages. The attrs of the result have `notes`: a sentence on names that are no images. Raises InputError for an
    image on two lists, a patient in two splits, labels of the wrong number or kind, or lists that name no image.
    """
    width, known = len(rows.findings.iloc[0]) if len(rows) else 0, set(rows.image_id)
    splits: dict[str, str] = {}
    labels: dict[str, np.ndarray] = {}
    for split, name in LISTS.items():
        for number, line in enumerate(read_lines(folder / name, "split list", "check --etl.split_lists"), start=1):
            # A name may contain blanks.
            image, *cells = [line] if line in known else line.split()
            if splits.setdefault(image, split) != split:
                raise InputError(f"{image} is on the {splits[image]} list and on the {split} list of {folder}")
            if not cells:
                continue
            if len(cells) != width or not set(cells) <= {"0", "1"}:
                raise InputError(
                    f"{folder / name} line {number}: {counted(len(cells), 'label')} {' '.join(cells[:4])}..., expected "
                    f"none, or {width} zeros and ones, one per finding of the label file"
                )
            said = np.array(cells, np.float32)
            if not np.array_equal(labels.setdefault(image, said), said):
                raise InputError(
                    f"{folder / name} line {number}: {image} has other labels in an earlier line: keep one"
                )
    notes = describe_unlisted(rows.image_id, set(splits), str(folder), hint)
    listed = rows.assign(split=rows.image_id.map(splits).astype(object).where(rows.image_id.isin(splits), None))
    leaks = find_leaks(listed.loc[listed.split.notna(), ["patient_id", "split"]])
    if leaks:
        of_patient = listed[(listed.patient_id == leaks[0]) & listed.split.notna()].drop_duplicates("split")
        images = " and ".join(
            f"{image} ({split})" for image, split in zip(of_patient.image_id, of_patient.split, strict=True)
        )
        raise InputError(
            f"{counted(len(leaks), 'patient is', 'patients are')} on two of the lists in {folder}, such as {leaks[0]} "
            f"with {images}: a patient may be in one split only, fix the lists{hint}"
        )
    listed.attrs["notes"] = notes
    if labels:
        found = [labels.get(image, old) for image, old in zip(rows.image_id, rows.findings, strict=True)]
        listed["findings"] = pd.Series(found, index=rows.index)
    return listed


def find_leaks(patients: pd.DataFrame) -> list[str]:
    """Patients with images in more than one split, sorted. patients: columns patient_id and split."""
    splits = patients.drop_duplicates().groupby("patient_id").size()
    return sorted(splits[splits > 1].index)


def _hash_places(patients: pd.Series, seed: int) -> pd.Series:
    """A number in 0..1 for each patient, evenly spread and independent of the other patients."""

    def place(patient: str) -> float:
        digest = hashlib.blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    return patients.map({patient: place(patient) for patient in patients.unique()})


def describe_unnamed_split(cells: pd.DataFrame, files: pd.Series) -> list[str]:
    """A sentence on a column or on folders that hold splits, which no setting names; empty if there are none.

    cells: columns that are not read. files: paths below the source.
    """
    column = next((name for name in cells if _are_splits(cells[name])), None)
    if column is not None:
        return [f"the column {column!r} holds splits: name it with --etl.columns.split {shlex.quote(column)}"]
    folders = files.str.split("/").str[:-1]
    for level in range(int(folders.str.len().min()) if len(files) else 0):
        if _are_splits(folders.str[level]):
            return [
                f"the images lie in folders of splits, such as {folders.str[level].iloc[0]!r}, which count only in a "
                "column of a label table: add one, and name it with --etl.columns.split"
            ]
    return []


def _are_splits(words: pd.Series) -> bool:
    """Whether each word is that of a split or empty, and these are several splits."""
    splits = {split_of(word) for word in words.unique()}
    return None not in splits and len(splits - {UNKNOWN}) > 1
