"""Row groups to batches, the same number of steps on every rank: the one owner of petastorm.

A rank reads the row groups with `index % world_size == rank`. Their rows are known from the Parquet footers before
anything is read, so every rank computes every rank's batches: each row is read once per epoch, and ranks with fewer
rows take slightly smaller batches instead of fewer steps.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from conf.errors import InputError
from etl.schema import Card, image_column
from etl.storage import is_local, locate
from etl.table import snapshot_files

# petastorm calls pyarrow's legacy API, which announces its removal on every call; the lock keeps the one that has it.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
warnings.filterwarnings("ignore", category=FutureWarning, message="The pyarrow.filesystem")

from petastorm import make_batch_reader  # noqa: E402, the filter must come first
from pyarrow.filesystem import S3FSWrapper  # noqa: E402


@dataclass(frozen=True)
class Batch:
    """Some images of one split."""

    image_ids: np.ndarray
    """(batch,) str"""
    pixels: Tensor
    """(batch, S, S) uint8"""
    labels: Tensor
    """(batch, findings) float32: 1 present, 0 absent, NaN unknown"""


@dataclass(frozen=True)
class Split:
    """The row groups of one split of one table version at one resolution."""

    name: str
    files: list[str]
    row_groups: list[int]
    """rows of each row group, in the reader's order"""
    size_px: int

    @property
    def rows(self) -> int:
        return sum(self.row_groups)

    def rows_of(self, rank: int, num_ranks: int) -> int:
        """Rows that `rank` of `num_ranks` reads in an epoch."""
        return sum(self.row_groups[rank::num_ranks])

    def smallest_step(self, num_ranks: int, batch_size: int) -> int:
        """Images of the smallest step of any rank."""
        return min(min(self.batch_sizes(rank, num_ranks, batch_size)) for rank in range(num_ranks))

    def batch_sizes(self, rank: int, num_ranks: int, batch_size: int) -> list[int]:
        """Images of each step of an epoch on `rank`: as many steps as on all ranks, at most batch_size images each."""
        steps = math.ceil(max(self.rows_of(r, num_ranks) for r in range(num_ranks)) / batch_size)
        rows = self.rows_of(rank, num_ranks)
        return [rows * (step + 1) // steps - rows * step // steps for step in range(steps)]


def open_split(shards: str, card: Card, name: str, size_px: int) -> Split:
    """Lists the row groups of a split in the version that the card names; reads footers only.

    shards: folder or address of the table. Raises InputError for a table in colour, a size that is not stored, a file
    that is gone or cut off, or a split without images.
    """
    if card.channels != 1:
        raise InputError(f"the table at {shards} is in colour, training reads grey ones: run the ETL on radiographs")
    if size_px not in card.sizes_px:
        raise InputError(
            f"training.size_px is {size_px}, the table at {shards} holds {card.sizes_px}: choose one of these, "
            "or add the size to etl.sizes_px and run the ETL again"
        )
    files = snapshot_files(shards, card.delta_version, name)
    row_groups = []
    for file in files:
        try:
            with locate(file).open("rb") as source:
                footer = pq.read_metadata(source)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"{file}, part of version {card.delta_version} of {shards}, cannot be read ({error}): run the ETL again"
            ) from error
        row_groups += [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]
    if not row_groups:
        raise InputError(f"the {name} split of {shards} (version {card.delta_version}) has no images: check the lists")
    return Split(name, files, row_groups, size_px)


def check_world_size(split: Split, num_ranks: int, batch_size: int) -> None:
    """Raises InputError when a rank would have nothing to do in some step."""
    if num_ranks > len(split.row_groups):
        raise InputError(
            f"{num_ranks} ranks and {len(split.row_groups)} row groups in the {split.name} split: start at most "
            f"{len(split.row_groups)} ranks, or run the ETL with fewer etl.rows_per_row_group"
        )
    for rank in range(num_ranks):
        sizes = split.batch_sizes(rank, num_ranks, batch_size)
        if min(sizes) == 0:
            raise InputError(
                f"rank {rank} of {num_ranks} has {sum(sizes)} rows for {len(sizes)} steps: raise training.batch_size "
                f"({batch_size}), start fewer ranks, or run the ETL with fewer etl.rows_per_row_group"
            )


def read_batches(
    split: Split, batch_size: int, rank: int = 0, num_ranks: int = 1, shuffle_seed: int | None = None
) -> Iterator[Batch]:
    """One pass over the rank's rows, each once.

    shuffle_seed: order of the row groups and of the rows inside them; None keeps the table's order.
    More ranks than row groups is allowed here: the last ranks get no batch (validation and test splits are small).
    Raises RuntimeError when the rows read differ from the footers' count.
    """
    num_ranks = min(num_ranks, len(split.row_groups))
    if rank >= num_ranks:
        return
    pending: list[Batch] = []
    sizes = split.batch_sizes(rank, num_ranks, batch_size)
    step = rows_read = 0
    for row_group in _read_row_groups(split, rank, num_ranks, shuffle_seed):
        rows_read += len(row_group.labels)
        pending.append(row_group)
        while step < len(sizes) and sum(len(part.labels) for part in pending) >= sizes[step]:
            joined = _join(pending)
            yield _cut(joined, 0, sizes[step])
            pending = [_cut(joined, sizes[step], len(joined.labels))]
            step += 1
    if rows_read != split.rows_of(rank, num_ranks):
        raise RuntimeError(
            f"rank {rank} read {rows_read} rows of the {split.name} split, the footers say "
            f"{split.rows_of(rank, num_ranks)}: the reader lost data"
        )


def _read_row_groups(split: Split, rank: int, num_ranks: int, seed: int | None) -> Iterator[Batch]:
    column = image_column(split.size_px)
    place = locate(split.files[0])
    # One worker: its order is reproducible, and it is several times faster than a training step.
    reader = make_batch_reader(
        [file if "://" in file else f"file://{file}" for file in split.files],
        schema_fields=["^image_id$", "^findings$", f"^{column}$"],
        workers_count=1,
        # In row groups: what waits in memory for the training step.
        results_queue_size=4,
        cur_shard=rank,
        shard_count=num_ranks,
        shuffle_row_groups=seed is not None,
        shuffle_rows=seed is not None,
        seed=seed,
        # Of a store petastorm would make a file system that pyarrow's legacy API does not take.
        filesystem=None if is_local(place) else S3FSWrapper(place.fs),
    )
    with reader:
        for rows in reader:
            joined = bytearray(b"".join(getattr(rows, column)))
            pixels = torch.frombuffer(joined, dtype=torch.uint8).view(-1, split.size_px, split.size_px)
            yield Batch(rows.image_id, pixels, torch.from_numpy(np.asarray(rows.findings, dtype=np.float32)))


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return Batch(
        np.concatenate([part.image_ids for part in parts]),
        torch.cat([part.pixels for part in parts]),
        torch.cat([part.labels for part in parts]),
    )


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(batch.image_ids[start:stop], batch.pixels[start:stop], batch.labels[start:stop])
