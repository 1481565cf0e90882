"""The manifest: a source's images with their patients, findings and splits, the same for every source format."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.clutter import describe_clutter
from etl.contract.words import parse_ages, says_nothing, sexes_of, strange_numbers, understand, view_of
from etl.sources.files import count_left_out, describe_endings, describe_links
from etl.sources.tables.cells import normalise_patients, refuse_rounded

MIN_CROWD = 10
"""with fewer images nobody looks like many patients under one name"""
WAYS_OUT = {
    "image": "write its path there, or remove the row",
    "patient": "write a name or number there that is the patient's own, or remove the row; with --etl.format csv, "
    "--etl.columns.patient '' makes every image a patient of its own",
}
"""what leads out, if a row does not say which image or patient it is about"""
STRANGE = {what: f"strange_{what}" for what in ("age", "sex", "view", "follow_up", "labels")}
"""columns of build_rows with the cells that were not understood, None for the others"""


@dataclass(frozen=True)
class Manifest:
    """Every listed image that has a file, and what else is known about the source."""

    names: pd.Series
    """image_id of every image that the label files name"""
    images: pd.DataFrame
    """image_id, path, file_version, patient_id, follow_up, age_years, sex, view, findings, boxes, split;
    source: name of the image's source, from read_manifest on; masks: addresses of its masks, with
    etl.masks; reason: why the image is left out before decoding, or
    None; looked_at: whether the reason is a fault of its file"""
    findings: list[str]
    """vocabulary, in the order of the `findings` column"""
    listed: int
    """images in the label files"""
    absent: int
    """listed images without a file"""
    left_out: dict[str, int]
    """kind and reason -> number of the source's other files, see count_left_out"""
    sha256: dict[str, str]
    """name of each label or list file -> SHA-256 of its bytes"""
    channels: int = 1
    """1 grey, 3 colour (RGB)"""
    not_understood: dict[str, dict[str, int]] = field(default_factory=dict)
    """age, sex, view, follow_up, labels or body part -> what the source says of it that is not understood, empty if it
    must not be shown -> images with a file"""
    notes: list[str] = field(default_factory=list)
    """sentences that say how the source was understood, where that is not obvious"""
    identities: str = ""
    """fingerprint of the salt that patients and images are named with; if set, file paths stay out of the tables"""
    sources: dict[str, Etl] = field(default_factory=dict)
    """name of each source, as in the column `source` -> the settings that it was read with"""
    corrections: dict[str, dict] = field(default_factory=dict)
    """as in Card"""
    agreement: dict[str, dict] = field(default_factory=dict)
    """as in Card"""


def build_rows(
    path: UPath,
    images: pd.Series,
    patients: pd.Series,
    follow_up: pd.Series,
    age: pd.Series,
    sex: pd.Series,
    view: pd.Series,
    findings: list[np.ndarray],
    strange_labels: pd.Series | None = None,
) -> pd.DataFrame:
    """The columns of Manifest.images that come from the cells of a label file, and STRANGE.

    path: the label file, for error messages. strange_labels: labels that contradict each other, None for the others.
    Raises InputError for an image that is named twice, has no patient, or has one that a spreadsheet has rounded.
    """
    _check_ids(path, images, patients)
    years, follow_ups = parse_ages(age), _parse_follow_ups(follow_up)
    sexes, strange_sexes = understand(sex, sexes_of(sex))
    views, strange_views = understand(view, view_of)
    return pd.DataFrame(
        {
            "image_id": images,
            "patient_id": normalise_patients(patients),
            "follow_up": follow_ups,
            "age_years": years,
            "sex": sexes,
            "view": views,
            "findings": findings,
            "boxes": [[]] * len(images),
            "strange_age": strange_numbers(age, years),
            "strange_follow_up": strange_numbers(follow_up.astype(str), follow_ups),
            "strange_sex": strange_sexes,
            "strange_view": strange_views,
            "strange_labels": strange_labels,
        }
    )


def sha256_of(file: UPath) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _parse_follow_ups(cells: pd.Series) -> pd.Series:
    """Whole numbers from 0 to 9,999, Int32; NA for anything else."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return numbers.where((numbers % 1 == 0) & (numbers >= 0) & (numbers < 10_000)).astype("Int32")


def assemble(
    rows: pd.DataFrame,
    files: pd.DataFrame,
    findings: list[str],
    tables: Iterable[UPath],
    searched: str,
    channels: int = 1,
    left_out: str | pd.Series = "",
    notes: Iterable[str] = (),
) -> Manifest:
    """The manifest of the rows that have a file.

    rows: from build_rows, with `split`, None for an image in no split, and `file`, the index of its file in `files`,
    None if it has none. files: from list_files. tables: label and list files. searched: the end of the InputError
    raised if no row has a file: which images were looked for, where, and what to check. left_out: why the files are
    left out that are neither rows nor tables: one reason for all, or one per file, with the index of `files`.
    """
    present = rows[rows.file.notna()].reset_index(drop=True)
    others = files.index[~files.index.isin(present.file) & ~files.path.isin([str(table) for table in tables])]
    unlisted = others[files.clutter[others].isna()]
    endings = describe_endings(rows.image_id[rows.file.isna()], unlisted)
    if present.empty:
        shown = next(iter(unlisted), None)
        clutter = describe_clutter(files.clutter)
        said = f"found: {counted(len(files), 'file')}{clutter}"
        found = f"{said}, such as {shown!r}" if shown else f"no other file was found{clutter}"
        said = f"; {endings}" if endings else ""
        raise InputError(f"none of the {len(rows)} {searched}; listed is {rows.image_id.iloc[0]!r}, {found}{said}")
    twice = present[present.file.duplicated(keep=False)]
    if len(twice):
        one, other = twice.image_id[twice.file == twice.file.iloc[0]][:2]
        raise InputError(f"{one!r} and {other!r} are the same file, {twice.file.iloc[0]!r}: keep one row per image")
    notes = [*notes, *rows.attrs.get("notes", []), *describe_links(files), *_twins(rows.patient_id)]
    notes += [endings] * bool(endings)
    notes += _crowd(rows.patient_id)
    strange = {what: present.pop(column).value_counts().to_dict() for what, column in STRANGE.items()}
    columns = ["path", "file_version"]
    present[columns] = files.loc[present.pop("file"), columns].to_numpy()
    present["looked_at"] = False
    why = left_out if isinstance(left_out, pd.Series) else pd.Series(left_out, files.index)
    present["reason"] = pd.Series(None, present.index, object).where(present.split.notna(), "in no split")
    return Manifest(
        names=rows.image_id,
        images=present,
        findings=findings,
        listed=len(rows),
        absent=len(rows) - len(present),
        left_out=count_left_out(why[others], files.clutter),
        sha256={table.name: sha256_of(table) for table in tables},
        channels=channels,
        not_understood={what: words for what, words in strange.items() if words},
        notes=notes,
    )


def _twins(patients: pd.Series) -> list[str]:
    """A sentence on patients whose names differ by case only: they may be one person in two splits, or two people."""
    names = pd.Series(patients.unique())
    twins = names[names.str.casefold().duplicated(keep=False)]
    if twins.empty:
        return []
    one = twins.iloc[0]
    other = next(name for name in twins if name != one and name.casefold() == one.casefold())
    return [
        f"{counted(len(twins), 'patient differs', 'patients differ')} from another one by case only, such as "
        f"{one!r} and {other!r}"
    ]


def _crowd(patients: pd.Series) -> list[str]:
    """A sentence on the patient with the most images, if a word for nobody may have made one of many."""
    numbers = patients.value_counts()
    if len(numbers) < 2 or numbers.iloc[0] < max(MIN_CROWD, len(patients) / 10, 10 * numbers.median()):
        return []
    return [f"the patient {numbers.index[0]!r} has {numbers.iloc[0]:,} of {len(patients):,} images: is it one person?"]


def _check_ids(path: UPath, images: pd.Series, patients: pd.Series) -> None:
    """Raises InputError for an image that is named twice, and for a row whose image or patient is not known."""
    duplicates = images[images.duplicated()]
    if len(duplicates):
        lines = [line + 2 for line in images.index[images == duplicates.iloc[0]]]
        raise InputError(
            f"{path} names {counted(len(duplicates), 'image')} twice, such as {duplicates.iloc[0]} in lines "
            f"{lines[0]} and {lines[1]}: keep one row per image"
        )
    refuse_rounded(path, images, "image")
    refuse_rounded(path, patients, "patient")
    nobody = {patient for patient in patients.unique() if says_nothing(patient)} | _filled_in(patients)
    for cells, what, nothing in ((images, "image", {""}), (patients, "patient", nobody)):
        without = cells[cells.isin(nothing)]
        if len(without):
            first, number = without.index[0] + 2, counted(len(without), "row lacks", "rows lack")
            # The unknown patient could already be in another split.
            raise InputError(
                f"{path} line {first}: no {what} ({without.iloc[0]!r}), expected one in every row ({number} it): "
                f"{WAYS_OUT[what]}"
            )


def _filled_in(patients: pd.Series) -> set[str]:
    """The negative number that stands for nobody, as -1 from pandas' fillna; empty if several or all are negative."""
    negative = patients[patients.str.fullmatch(r"-(0*1|9+)(\.0+)?")]
    alone = len(normalise_patients(negative).unique()) == 1 and len(negative) < len(patients)
    return set(negative) if alone and not patients[~patients.isin(negative)].str.fullmatch(r"-\d.*").any() else set()
