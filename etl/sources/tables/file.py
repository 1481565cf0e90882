"""Reads label tables and other text files, as people keep them."""

import gzip
import os
import posixpath
import zlib
from collections.abc import Iterable

import pandas as pd
from upath import UPath

from conf.errors import InputError
from etl.contract.storage import is_local
from etl.sources.tables.rows import read_rows

MAX_SHOWN = 20
TABLES = (".csv", ".tsv", ".xlsx")


def read_table(path: UPath, needed: Iterable[str], optional: Iterable[str] | None = None) -> pd.DataFrame:
    """Reads a comma-separated table; header and cells are stripped text, and missing cells are empty.

    The index is each row's line in the file, minus 2 (so that it counts from 0 where no line is blank).
    A file whose name ends in .gz is decompressed. optional: further columns that are read if the table has them, and
    no others, so that a wide table takes little memory; None: all.
    Raises InputError if the file is absent, is not such a table, is truncated, or lacks one of the `needed` columns.
    """
    if not path.is_file():
        raise InputError(f"no label file at {path}{_other_tables(path)}: check --etl.source and --etl.format")
    needed = set(needed)
    kept = None if optional is None else needed.union(optional)
    content = _decompress(path) if path.name.endswith(".gz") else path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it contains null bytes")
    except ValueError as error:
        raise InputError(
            f"{path} is not a comma-separated table in UTF-8 ({error}), expected a label file: get a fresh copy, or "
            "save it as CSV in UTF-8"
        ) from error
    del content
    written = read_rows(path, text, needed, kept)
    if not written.rows:
        raise InputError(f"{path} has a header but no rows: get a fresh copy")
    names = [name or f"Unnamed: {place}" for place, name in enumerate(written.header)]
    table = pd.DataFrame(written.rows, pd.Index(written.lines) - 2, names, dtype=object)
    # Commas at the end of every row make columns without a name.
    nameless = [name for name in names if name.startswith("Unnamed: ") and (table[name].str.strip() == "").all()]
    table = table.drop(columns=nameless)
    if kept is not None:
        table = table[[name for name in table if name in kept]]
    # Each different cell once: most columns have few.
    return table.apply(lambda cells: cells.map({cell: _plain(cell) for cell in cells.unique()}))


def _plain(cell: str) -> str:
    """The cell without blanks around it. Spreadsheets write ="0017" for a number that is text."""
    cell = cell.strip()
    return cell[2:-1] if len(cell) > 2 and cell.startswith('="') and cell.endswith('"') else cell


def _decompress(path: UPath) -> bytes:
    """The content of a gzip file. Raises InputError if it is damaged or truncated."""
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is not a whole gzip file ({error}): the download was cut or damaged, so get a fresh copy"
        ) from error


def table_path(source: UPath, name: str) -> UPath:
    """The label file of this name; without `..` in it, so that it is known among the source's files.

    Raises InputError for a name that is none, an address, or a path of this machine if the source is a store.
    """
    expanded = os.path.expanduser(name)
    if not name or "://" in name or (os.path.isabs(expanded) and not is_local(source)):
        raise InputError(
            f"etl.columns.label_file is {name!r}, expected the name of a table below the source: copy it there"
        )
    return source / posixpath.normpath(expanded)


def _other_tables(path: UPath) -> str:
    """A sentence on the tables that are there instead; empty if there are none."""
    folder = path.parent
    found = [file for pattern in ("*", "*/*") for file in folder.glob(pattern) if file.suffix.lower() in TABLES]
    others = sorted(str(file)[len(str(folder)) :].lstrip("/") for file in found)
    if not others:
        return ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    join = ", or, as one table is read, join them with a column for the split" if len(others) > 1 else ""
    return (
        f", but {', '.join(others[:3])}{more}: name the table with --etl.columns.label_file, if it is comma-separated"
        f"{join}"
    )


def read_lines(path: UPath, what: str, advice: str) -> list[str]:
    """The stripped lines of a text file, without blank ones.

    what: what the file should be. advice: the next step. Both are for the InputError that is raised if it is missing.
    """
    if not path.is_file():
        raise InputError(f"no {what} at {path}: {advice}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}), expected a {what}: get a fresh copy") from error
    return [line.strip() for line in lines if line.strip()]


def optional_column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column of a table from read_table; empty cells if the table lacks it."""
    return table[name] if name in table.columns else pd.Series("", index=table.index)


def describe_unread(columns: list[str]) -> list[str]:
    """A sentence on columns of a table that are not read; empty if there are none."""
    shown = f"{', '.join(columns[:MAX_SHOWN])}{' ...' * (len(columns) > MAX_SHOWN)}"
    return [f"columns that are not read: {shown}"] if columns else []


def describe_lacking(table: pd.DataFrame, columns: Iterable[str], path: UPath) -> list[str]:
    """A sentence on columns that the table lacks, so that what they say is unknown; empty if it has all."""
    lacking = [name for name in columns if name not in table.columns]
    return [f"{path.name} has no column {', '.join(map(repr, lacking))}, so that is unknown"] if lacking else []
