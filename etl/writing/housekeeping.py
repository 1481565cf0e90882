"""Housekeeping of the table: joins small files and removes files that no version needs any more."""

from dataclasses import asdict, dataclass, replace
from functools import partial

import pandas as pd

from conf.errors import InputError
from conf.settings import Etl
from etl.cluster.workers import SparkWorkers
from etl.contract.delta import keep_history, vacuum
from etl.contract.schema import Card, table_schema
from etl.contract.table import commit, next_version, read_card, read_committed
from etl.writing.publish import discard, new_attempt, read_new, with_address
from etl.writing.shard_file import write_shard
from etl.writing.update import plan_compaction


@dataclass(frozen=True)
class Housekeeping:
    """What `maintain` did."""

    card: Card
    """card of the newest version"""
    rows: pd.DataFrame
    """rows of the newest version, as in Committed"""
    quarantine: pd.DataFrame
    joined: int
    """number of small files that were joined"""
    into: int
    """number of files that they were joined into"""
    removed: int
    """number of files that no kept version needed"""


def maintain(
    tables: tuple[str, str], settings: Etl, keep_versions: set[int], retention_hours: int, workers: SparkWorkers
) -> Housekeeping:
    """Joins small files in one new version with the same rows, and removes files of versions that nobody needs.

    keep_versions: versions that stay readable, besides the newest and every one that was the newest within
    `retention_hours`. Raises InputError if the table or one of these versions does not exist.
    """
    shards, quarantine = tables
    card = read_card(shards)
    if card is None:
        raise InputError(f"no Delta table of this release at {shards}: run `spark-submit etl/preprocess.py` first")
    kept = [read_card(shards, version) for version in keep_versions]
    for table in tables:
        keep_history(table)
    before = read_committed(shards, quarantine, card)
    # The table's own settings count: the given ones may be another scenario's.
    own = ("sizes_px", "crop", "crop_margin", "lungs", "masks", "rows_per_row_group", "rows_per_file", "seed")
    made_with = asdict(Etl()) | card.settings
    settings = replace(settings, **{name: made_with[name] for name in own})
    plan, replaced = plan_compaction(before.rows, settings)
    if plan:
        version = next_version(shards)
        attempt = new_attempt(version)
        write = partial(
            write_shard, table=shards, attempt=attempt, settings=settings, channels=card.channels, sources={}
        )
        try:
            written = workers.map(write, plan, [len(shard.rows) for shard in plan], "joining small files")
            _check_same(before.rows, replaced, pd.concat(read_new(shards, written)))
        except BaseException:
            discard(shards, attempt)
            raise
        card = replace(card, delta_version=version)
        added = [(file.path, file.size_bytes, file.num_rows) for file in written]
        commit(shards, card, table_schema(card.sizes_px, settings.crop, settings.masks), added, replaced)
    removed = vacuum(shards, keep_versions | {card.delta_version}, retention_hours)
    vacuum(quarantine, {version.quarantine_version for version in (*kept, card) if version}, retention_hours)
    now = read_committed(shards, quarantine, card) if plan else before
    card = with_address(card, shards, settings)
    return Housekeeping(card, now.rows, now.quarantine, len(replaced), len(plan), len(removed))


def _check_same(rows: pd.DataFrame, replaced: list[str], written: pd.DataFrame) -> None:
    """Asserts that the written rows are those of the replaced files, in any order."""
    names = ["image_id", "patient_id", "split", "pixel_hash", "file_version"]
    old = rows[rows.file.isin(replaced)]
    old, new = (part[names].sort_values("image_id", ignore_index=True) for part in (old, written))
    assert old.equals(new), "the joined files and the small ones hold different rows"
