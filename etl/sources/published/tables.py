"""What the readers of published collections share: finding a table, rows that repeat, studies in order, reasons."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.sources.files import describe_match
from etl.sources.manifest import Manifest
from etl.sources.tables.cells import refuse_different

FOLDERS = ("", "*/")
"""where a table may lie: in the source, or in one folder below it"""


def find_table(source: UPath, pattern: str, what: str, folders: Iterable[str] = FOLDERS) -> UPath:
    """The one table of this name, also with .gz behind it.

    pattern: a glob pattern of names. what: what it is, for the InputError that is raised if there is none, or several.
    """
    found = find_tables(source, pattern, folders)
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none"
        raise InputError(
            f"{source} must hold one {pattern} or {pattern}.gz ({what}), in it or in a folder directly below it; found "
            f"{names}: check --etl.source and --etl.format{', or move all but one out of the source' * bool(found)}"
        )
    return found[0]


def optional_table(source: UPath, name: str) -> UPath | None:
    """The one table of this name, or None. Raises InputError if there are several."""
    return find_table(source, name, "one table") if find_tables(source, name) else None


def find_tables(source: UPath, pattern: str, folders: Iterable[str] = FOLDERS) -> list[UPath]:
    """All tables of this name, sorted, also with .gz behind it."""
    found = {file for folder in folders for end in ("", ".gz") for file in source.glob(folder + pattern + end)}
    return sorted((file for file in found if file.is_file()), key=str)


def drop_repeats(
    table: pd.DataFrame, path: UPath, key: str, what: tuple[str, str] = ("image", "images")
) -> tuple[pd.DataFrame, list[str]]:
    """The table without rows that say the same again, and a sentence on them.

    key: the column that names the image, or what else a row is about (`what`, one and several). Raises InputError for
    two rows of one that differ.
    """
    repeats = table.duplicated()
    kept = table[~repeats]
    refuse_different(kept[[key, *kept.columns.drop(key)]], path, True, what)
    one, many = "row repeats an earlier row and was", "rows repeat an earlier row and were"
    return kept, [f"{path.name}: {counted(repeats.sum(), one, many)} read once"] if repeats.any() else []


def count_studies(patients: pd.Series, studies: pd.Series) -> pd.Series:
    """Each study's position among its patient's, from 0. studies: text that sorts as the studies follow in time."""
    codes = pd.Series(np.unique(studies.to_numpy(str), return_inverse=True)[1], studies.index)
    return codes.groupby(patients).rank("dense").astype(int) - 1


def no_split(settings: Etl) -> list[str]:
    """A sentence on a collection without a split; empty if the settings choose one."""
    return ["the collection has no split: a hash of the patient chooses it"] * (settings.split == "source")


def refuse_blank(table: pd.DataFrame, path: UPath, columns: Iterable[str]) -> None:
    """Raises InputError for an empty cell in one of these columns."""
    for name in columns:
        blank = table.index[table[name] == ""]
        if len(blank):
            raise InputError(
                f"{path} line {blank[0] + 2}: {name} is empty, expected one in every row ({counted(len(blank), 'row')} "
                "without): get a fresh copy, or remove the row"
            )


def describe_names(names: pd.Series, found: pd.Series) -> list[str]:
    """A sentence on images whose file has another name than the table says; empty if there are none.

    The folders of a collection differ with the way in which its archives were unpacked.
    """
    return describe_match(names, found.map(lambda file: PurePosixPath(file).name, na_action="ignore"))


def leave_out(manifest: Manifest, reasons: pd.Series) -> Manifest:
    """The manifest whose images have these reasons why they are left out. reasons: image -> reason or None."""
    said = manifest.images.image_id.map(reasons).astype(object)
    reason = manifest.images.reason.where(manifest.images.reason.notna(), said)
    return replace(manifest, images=manifest.images.assign(reason=reason.where(reason.notna(), None)))


def some(words: Iterable[str], limit: int = 5) -> str:
    """The first words, and how many more there are."""
    words = list(words)
    more = f" and {len(words) - limit:,} more" if len(words) > limit else ""
    return ", ".join(map(repr, words[:limit])) + more
