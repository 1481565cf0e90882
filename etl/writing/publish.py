"""One run of the ETL makes at most one new version: it writes files, checks them, and only then commits."""

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import pandas as pd

from conf.progress import say
from conf.settings import Etl
from etl.card.counts import check_splits, count_labels, count_masks, count_whole, describe_pixels, describe_splits
from etl.cluster.workers import SparkWorkers
from etl.contract.delta import keep_history
from etl.contract.images.lungs.files import describe_lungs
from etl.contract.quarantine import write_quarantine
from etl.contract.schema import CONTRACT, SPLITS, Card, table_schema
from etl.contract.storage import is_of_a_store, locate, remove_unfinished
from etl.contract.table import (
    commit,
    next_version,
    read_card,
    read_committed,
    read_identity,
    read_labels,
)
from etl.sources.joining.sources import reading_of
from etl.sources.manifest import Manifest
from etl.writing.accounts import check_images, find_duplicates
from etl.writing.shard_file import Shard, ShardFile, write_shard
from etl.writing.update import (
    NO_ROWS,
    Update,
    needs_rebuild,
    plan_update,
    sort_quarantine,
)


@dataclass(frozen=True)
class Published:
    """What a run of the ETL did."""

    card: Card
    rows: pd.DataFrame
    """rows of the table, as in Committed"""
    quarantine: pd.DataFrame
    counts: dict[str, int]
    """numbers of new, changed, relabelled and removed images"""
    committed: bool
    """whether there is a new version"""
    worker_peak_mb: float


def publish(
    tables: tuple[str, str],
    settings: Etl,
    source: str,
    manifest: Manifest,
    workers: SparkWorkers,
    rebuild: bool = False,
) -> Published:
    """Brings the tables up to date with the manifest; commits nothing if they already are.

    tables: folders or addresses of the shards and of the quarantine. rebuild: decode every image again and replace the
    table, whatever it holds.
    Raises InputError if too many images are bad, a split is empty or a patient is in two splits. After any error, or
    if the run is killed, the old version is still the newest.
    """
    # Fails before hours of decoding; the written rows are checked again.
    check_splits(manifest.images)
    shards, quarantine_table = tables
    identity = read_identity(shards)
    for table in tables:
        keep_history(table)
    card = None if rebuild else read_card(shards)
    before = None
    if not needs_rebuild(card, manifest, settings):
        before = read_committed(shards, quarantine_table, card)
    if before and (forgotten := [name for name in card.corrections if name not in manifest.corrections]):
        say(
            f"note: the table's corrections of {', '.join(forgotten)} are not named now, so its labels are the source's"
        )
    update = plan_update(manifest, before, settings)
    if before and not update.shards and not update.replaced and update.quarantine.equals(before.quarantine):
        stated = (manifest.listed, manifest.absent, manifest.sha256, source)
        if stated == (card.images_listed, card.images_absent, card.source_sha256, card.source):
            return Published(
                with_address(card, shards, settings), before.rows, before.quarantine, update.counts, False, 0.0
            )

    version = next_version(shards)
    attempt = new_attempt(version)
    made_as = {"settings": settings, "channels": manifest.channels, "sources": manifest.sources}
    write = partial(write_shard, table=shards, attempt=attempt, **made_as)
    try:
        written, new, duplicates = _write(update, shards, settings, write, workers)
        rows = pd.concat([update.kept, *(part for part in new if len(part))], ignore_index=True)
        quarantine = _join_quarantine(update.quarantine, written, duplicates, manifest)
        are_hashed = bool(manifest.identities)
        check_images(manifest.images.image_id, rows.image_id, quarantine, settings.max_quarantined_fraction, are_hashed)
        reasons = manifest.images.image_id.map(quarantine.set_index("image_id").reason)
        check_splits(manifest.images.assign(reason=reasons))
        card = _make_card(
            rows,
            manifest,
            settings,
            delta_table_id=identity or uuid.uuid4().hex,
            delta_version=version,
            quarantine_version=next_version(quarantine_table),
            images_quarantined=len(quarantine),
            source=source,
        )
        card = replace(card, quarantine_version=write_quarantine(quarantine_table, quarantine))
    except BaseException:
        discard(shards, attempt)
        raise
    added = [(file.path, file.size_bytes, file.num_rows) for file in written if file.path]
    commit(shards, card, table_schema(settings.sizes_px, settings.crop, settings.masks), added, update.replaced)
    peak_mb = max((file.peak_mb for file in written), default=0.0)
    return Published(with_address(card, shards, settings), rows, quarantine, update.counts, True, peak_mb)


def _join_quarantine(
    known: pd.DataFrame, written: list[ShardFile], duplicates: pd.DataFrame, manifest: Manifest
) -> pd.DataFrame:
    """The quarantine: images known to be bad, images that the workers found bad, and copies; columns of QUARANTINE."""
    bad = pd.DataFrame([fault for file in written for fault in file.bad], columns=["image_id", "reason"])
    sources = manifest.images.set_index("image_id")[["path", "file_version"]]
    bad = pd.concat([bad, duplicates]).join(sources, on="image_id")
    quarantine = sort_quarantine(pd.concat([known, bad]))
    if manifest.identities:
        quarantine["path"] = None
    return quarantine


def _make_card(rows: pd.DataFrame, manifest: Manifest, settings: Etl, **fields) -> Card:
    """The card of these rows. Raises InputError if a split is empty or a patient is in two splits."""
    return Card(
        contract=CONTRACT,
        table="",
        findings=manifest.findings,
        channels=manifest.channels,
        sizes_px=settings.sizes_px,
        **describe_splits(rows, manifest.findings),
        **describe_pixels(rows[rows.split == "train"], settings.sizes_px),
        images_listed=manifest.listed,
        images_absent=manifest.absent,
        images_unlisted=sum(manifest.left_out.values()),
        masks=count_masks(rows) if settings.masks else {},
        lungs=describe_lungs(settings.lungs),
        kept_whole=count_whole(rows) if settings.crop != "none" else {},
        left_out=manifest.left_out,
        not_understood=manifest.not_understood,
        identities=manifest.identities,
        source_sha256=manifest.sha256,
        settings=asdict(settings),
        sources=_describe_sources(rows, manifest) if settings.sources else {},
        corrections=manifest.corrections,
        agreement=manifest.agreement,
        **fields,
    )


def _describe_sources(rows: pd.DataFrame, manifest: Manifest) -> dict[str, dict]:
    """Card.sources of these rows."""
    return {
        name: {"settings": reading_of(settings), **count_labels(rows[rows.source == name], manifest.findings)}
        for name, settings in manifest.sources.items()
    }


def with_address(card: Card, shards: str, settings: Etl) -> Card:
    """The card with the table's address if it is not the workspace: only card.json has it, see Card.committed."""
    return replace(card, table=shards.removesuffix("/shards") if settings.table else "")


def new_attempt(version: int) -> str:
    """The prefix of a run's file names. The version comes first, because readers sort the names."""
    return f"{version:08}-{uuid.uuid4().hex[:8]}"


def discard(shards: str, attempt: str) -> None:
    """Removes the files of a run that will not be committed, which may have filled the disk.

    Where that fails too, the housekeeping removes them later, as after a kill: the run's own error is the one to show.
    """
    try:
        for split in SPLITS:
            remove_unfinished(locate(shards), f"split={split}/{attempt}-")
        for file in locate(shards).glob(f"split=*/{attempt}-*.parquet"):
            file.unlink(missing_ok=True)
    except Exception as error:
        if not isinstance(error, OSError) and not is_of_a_store(error):
            raise


def _write(
    update: Update,
    table: str,
    settings: Etl,
    write: Callable[[Shard], ShardFile],
    workers: SparkWorkers,
) -> tuple[list[ShardFile], list[pd.DataFrame], pd.DataFrame]:
    """Writes the update's files without copies of images.

    Returns the files, the rows of each as read back, see read_new, and the copies as in find_duplicates.
    """

    def run(shards: list[Shard], title: str) -> list[ShardFile]:
        return workers.map(write, shards, [len(shard.rows) for shard in shards], title)

    written = run(update.shards, "images to shards")
    new = read_new(table, written)
    copied = {image for shard in update.shards for image in shard.rows.image_id[shard.rows.kept_in.notna()]}
    there = copied | set(update.kept.image_id)
    duplicates = find_duplicates(pd.concat([update.kept, *new], ignore_index=True), there, settings)
    again = [i for i, rows in enumerate(new) if rows.image_id.isin(duplicates.image_id).any()]
    shards = []
    for index in again:
        rows, good = update.shards[index].rows, set(new[index].image_id) - set(duplicates.image_id)
        rows = rows[rows.image_id.isin(good)].assign(kept_in=new[index].file.iloc[0])
        shards.append(replace(update.shards[index], rows=rows))
    rewritten = run(shards, "removing copies")
    for index, file, rows in zip(again, rewritten, read_new(table, rewritten), strict=True):
        (locate(table) / written[index].path).unlink()
        written[index], new[index] = replace(file, bad=written[index].bad), rows
    return written, new, duplicates


def read_new(table: str, files: list[ShardFile]) -> list[pd.DataFrame]:
    """Reads back the rows of each new file, see read_labels; NO_ROWS for one whose images were all bad."""
    rows = iter(read_labels([str(locate(table) / file.path) for file in files if file.path]))
    return [next(rows) if file.path else NO_ROWS for file in files]
