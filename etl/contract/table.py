"""The Delta table of shards, and what belongs to one of its versions: cards, files, rows, commits."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from conf.errors import InputError
from etl.contract.ahead import call_ahead, map_files
from etl.contract.delta import KEEP_HISTORY, KEEP_LOG_NOW, open_table, store_options
from etl.contract.quarantine import read_quarantine
from etl.contract.row_groups import GROUPS_AHEAD, footer_of, read_row_groups
from etl.contract.schema import CONTRACT, SPLITS, Card
from etl.contract.storage import reaching, unreachable

# Operations that make versions without a change of rows: Delta's own VACUUM, and keep_history.
HOUSEKEEPING = ("VACUUM START", "VACUUM END", "SET TBLPROPERTIES")


@dataclass(frozen=True)
class Committed:
    """The newest version of a table, as the ETL wrote it."""

    card: Card
    rows: pd.DataFrame
    """the columns of LABELS, crop and mask_fault if the table has them, mean_S, std_S, pixel_hash, file_version, and
    `file`: the Parquet file's path or address"""
    quarantine: pd.DataFrame


def next_version(table: str) -> int:
    """The version that the next commit makes. Raises InputError for a store that does not answer."""
    deltatable = open_table(table)
    return 0 if deltatable is None else deltatable.version() + 1


def read_card(table: str, version: int | None = None) -> Card | None:
    """The card that a version, or the newest one, was committed with; None without a table or with an older contract.

    Raises InputError for a version that does not exist or was not written by this program.
    """
    deltatable = open_table(table)
    if deltatable is None:
        return None
    if version is not None and not 0 <= version <= deltatable.version():
        raise InputError(f"{table} has no version {version}, its newest is {deltatable.version()}")
    commits = [commit for commit in deltatable.history() if version is None or commit["version"] <= version]
    commit = next((commit for commit in commits if commit["operation"] not in HOUSEKEEPING), {})
    card = _own_card(commit)
    if card is None:
        raise InputError(
            f"version {commit.get('version')} of {table} was written by another program ({commit.get('engineInfo')}): "
            "choose another --workspace or --etl.table, or, if the table was made here, rebuild it with "
            "--rebuild"
        )
    return Card.parse(commit["userMetadata"], f"the commit of {table}") if card["contract"] == CONTRACT else None


def read_identity(table: str) -> str | None:
    """The delta_table_id of the table's cards, which stays as long as its log exists; None if there is no table.

    Raises InputError for a table that another program made, because its layout is unknown.
    """
    deltatable = open_table(table)
    if deltatable is None:
        return None
    for card in map(_own_card, deltatable.history()):
        if card and deltatable.metadata().partition_columns == ["split"]:
            return card["delta_table_id"]
    raise InputError(
        f"the Delta table at {table} was made by another program: choose another --workspace or --etl.table"
    )


def _own_card(commit: dict) -> dict | None:
    """The fields of the card in a commit; None for a commit of another program."""
    try:
        card = json.loads(commit["userMetadata"])
    except (KeyError, TypeError, json.JSONDecodeError):
        return None
    return card if isinstance(card, dict) and {"contract", "delta_table_id"} <= set(card) else None


def committed_at(table: str, version: int) -> str | None:
    """When a version of a table was committed: UTC, ISO 8601; None if its log no longer says it."""
    deltatable = open_table(table)
    commits = deltatable.history() if deltatable else []
    times = [commit["timestamp"] for commit in commits if commit["version"] == version]
    return datetime.fromtimestamp(times[0] / 1000, UTC).isoformat(timespec="seconds") if times else None


def read_committed(shards: str, quarantine: str, card: Card) -> Committed:
    """The rows, without pixels, and the quarantined images of the version of this card."""
    parts = read_labels([file for split in SPLITS for file in snapshot_files(shards, card.delta_version, split)])
    return Committed(card, pd.concat(parts, ignore_index=True), read_quarantine(quarantine, card.quarantine_version))


def read_labels(files: Iterable[str]) -> list[pd.DataFrame]:
    """All columns but the pixels of each of these Parquet files, and `split` and `file`, which is its address.

    Raises InputError for a missing or truncated file.
    """
    return list(map_files(_read_labels, files))


def _read_labels(file: str) -> pd.DataFrame:
    try:
        with reaching(file):
            schema = footer_of(file).metadata.schema.to_arrow_schema()
            columns = [field.name for field in schema if not pa.types.is_binary(field.type)]
            rows = read_row_groups(file, columns).select(columns).to_pandas()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{file} of the table cannot be read ({error}): add --rebuild to rebuild the table") from error
    return rows.assign(split=PurePosixPath(file).parent.name.removeprefix("split="), file=file)


def read_rows(table: str, version: int, splits: Iterable[str]) -> pd.DataFrame:
    """One row per image of these splits in a version of the table: all columns but the pixels."""
    parts = read_labels([file for split in splits for file in snapshot_files(table, version, split)])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["image_id", "patient_id"])


def read_pixels(images: pd.DataFrame, column: str) -> dict[str, bytes]:
    """Image -> its bytes in this column. images: image_id and file of each, as in Committed.

    Reads the row groups that hold them, GROUPS_AHEAD of a store at a time.
    """
    ids = images.groupby("file").image_id.agg(set)
    rows = zip(ids.index, ids, map_files(_rows_of_groups, ids.index), strict=True)
    wanted = [
        (file, group, {row: name for row, name in enumerate(names) if name in some})
        for file, some, groups in rows
        for group, names in enumerate(groups)
    ]
    calls = [(file, partial(_read_values, file, column, group, rows)) for file, group, rows in wanted if rows]
    found: dict[str, bytes] = {}
    for read in call_ahead(calls, GROUPS_AHEAD):
        found |= read()
    return found


def _rows_of_groups(file: str) -> list[list[str]]:
    """The images of each row group, in order."""
    metadata, names = footer_of(file).metadata, iter(read_row_groups(file, ["image_id"])["image_id"].to_pylist())
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return [list(islice(names, size)) for size in sizes]


def _read_values(file: str, column: str, group: int, rows: dict[int, str]) -> dict[str, bytes]:
    """rows: position in the row group -> the name of its value."""
    values = read_row_groups(file, [column], [group])[column]
    return {name: values[row].as_py() for row, name in rows.items()}


def commit(
    table: str, card: Card, schema: pa.Schema, added: list[tuple[str, int, int]], removed: list[str] | None
) -> None:
    """Makes version card.delta_version of the table in one step; it carries the card, its settings and its hash.

    added: path below the table's folder (split=S/NAME), bytes and rows of each new file. removed: files (paths or
    addresses) of the version before that leave it; None: all of them, and the schema may change.
    Raises InputError if another program has made that version meanwhile, except on a file system without hard links.
    """
    now_ms, options = int(time.time() * 1000), store_options(table, to_write=True)
    adds = [
        AddAction(p, size, _partition(p), now_ms, True, json.dumps({"numRecords": rows})) for p, size, rows in added
    ]
    properties = CommitProperties(
        {"userMetadata": card.committed.to_json(), "card_sha256": card.sha256, "settings": json.dumps(card.settings)},
        max_commit_retries=0,
    )
    hooks = {"commit_properties": properties, "post_commithook_properties": KEEP_LOG_NOW}
    schema = Schema.from_arrow(schema)
    try:
        if card.delta_version == 0:
            create_table_with_add_actions(
                table,
                schema,
                adds,
                partition_by=["split"],
                configuration=KEEP_HISTORY,
                storage_options=options,
                **hooks,
            )
            return
        before = DeltaTable(table, storage_options=options)
        if before.version() != card.delta_version - 1:
            raise InputError(
                f"{table} is at version {before.version()} already: another program writes to it, try again"
            )
        names = [path.rpartition("/split=")[2] for path in removed or []]
        removes = [RemoveAction(f"split={n}", True, now_ms, partition_values=_partition(f"split={n}")) for n in names]
        mode = "overwrite" if removed is None else "append"
        before.create_write_transaction([*adds, *removes], mode, schema, ["split"], **hooks)
    except DeltaError as error:
        raise InputError(f"{table} took no version {card.delta_version} ({error}): try again") from error
    except OSError as error:
        raise InputError(unreachable(table, error)) from error


def snapshot_files(table: str | os.PathLike, version: int, split: str) -> list[str]:
    """Parquet files of one split in one version of the table, sorted absolute paths or addresses.

    The folder also holds files of other versions, so it must never be listed. Raises InputError if there is
    no table, if the version is gone, or if the store does not answer.
    """
    try:
        snapshot = DeltaTable(table, version=version, storage_options=store_options(str(table)))
    except TableNotFoundError as error:
        raise InputError(f"no Delta table at {table}: run `spark-submit etl/preprocess.py` first") from error
    except DeltaError as error:
        raise InputError(f"version {version} of {table} cannot be read ({error}): run the ETL again") from error
    except OSError as error:
        raise InputError(unreachable(str(table), error)) from error
    uris = snapshot.file_uris(file_pruning_predicate=[("split", "=", split)])
    # These are absolute paths, but with %20 for a space.
    return sorted(unquote(uri) for uri in uris)


def _partition(path: str) -> dict[str, str]:
    return {"split": path.removeprefix("split=").partition("/")[0]}
