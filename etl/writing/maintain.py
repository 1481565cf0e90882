"""Housekeeping of the table: small files joined, files that no version needs any more removed."""

from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from conf.errors import InputError
from conf.settings import Etl
from etl.cluster.workers import SparkWorkers
from etl.contract.schema import Card, table_schema
from etl.contract.table import commit, next_version, read_card, read_committed, vacuum
from etl.writing.publish import discard, new_attempt, read_new_file, with_address
from etl.writing.shard_file import write_shard
from etl.writing.update import plan_compaction


@dataclass(frozen=True)
class Housekeeping:
    """What was done."""

    card: Card
    """of the newest version"""
    rows: pd.DataFrame
    """of it, as in Committed"""
    quarantine: pd.DataFrame
    joined: int
    """small files"""
    into: int
    """files"""
    removed: int
    """files that no kept version has"""


def maintain(
    tables: tuple[str, str], settings: Etl, keep_versions: set[int], retention_hours: int, workers: SparkWorkers
) -> Housekeeping:
    """Joins small files as one new version with the same rows, and removes files of versions that nobody needs.

    keep_versions: stay readable, as the newest does and every one that was the newest within `retention_hours`.
    Raises InputError where there is no table or no such version.
    """
    shards, quarantine = tables
    card = read_card(shards)
    if card is None:
        raise InputError(f"no Delta table of this release at {shards}: run `spark-submit etl/preprocess.py` first")
    kept = [read_card(shards, version) for version in keep_versions]
    before = read_committed(shards, quarantine, card)
    # The table's own: those at hand may be another scenario's.
    own = ("sizes_px", "rows_per_row_group", "rows_per_file", "seed")
    settings = replace(settings, **{name: card.settings[name] for name in own})
    plan, replaced = plan_compaction(before.rows, settings)
    if plan:
        attempt = new_attempt(shards)
        write = partial(write_shard, table=shards, attempt=attempt, settings=settings, channels=card.channels)
        try:
            written = workers.map(write, plan, [len(shard.rows) for shard in plan], "small files to large ones")
            _check_same(before.rows, replaced, pd.concat([read_new_file(shards, file) for file in written]))
        except BaseException:
            discard(shards, attempt)
            raise
        card = replace(card, delta_version=next_version(shards))
        added = [(file.path, file.size_bytes, file.num_rows) for file in written]
        commit(shards, card, table_schema(card.sizes_px), added, replaced)
    removed = vacuum(shards, keep_versions | {card.delta_version}, retention_hours)
    vacuum(quarantine, {version.quarantine_version for version in (*kept, card) if version}, retention_hours)
    now = read_committed(shards, quarantine, card) if plan else before
    card = with_address(card, shards, settings)
    return Housekeeping(card, now.rows, now.quarantine, len(replaced), len(plan), len(removed))


def _check_same(rows: pd.DataFrame, replaced: list[str], written: pd.DataFrame) -> None:
    """The written rows are those of the replaced files, in whatever order."""
    names = ["image_id", "patient_id", "split", "pixel_hash", "file_version"]
    old = rows[rows.file.isin(replaced)]
    old, new = (part[names].sort_values("image_id", ignore_index=True) for part in (old, written))
    assert old.equals(new), "the joined files hold other rows than the small ones"
