"""Reads row groups into batches, each row once. The only file that imports petastorm."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from conf.errors import InputError
from etl.contract.schema import image_column
from etl.contract.storage import is_local, locate
from etl.contract.version import TableVersion
from training.network.models import encode_attributes
from training.reading.plan import Plan, Split

# petastorm calls pyarrow's legacy API, which warns of its removal on every call. The lock file pins a pyarrow that has
# it.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
warnings.filterwarnings("ignore", category=FutureWarning, message="The pyarrow.filesystem")

from petastorm import make_batch_reader  # noqa: E402, the filter must come first
from petastorm.workers_pool import thread_pool  # noqa: E402
from pyarrow.filesystem import S3FSWrapper  # noqa: E402

# petastorm's worker has read ahead and waits for room nearly all the time. By default it checks a thousand times a
# second whether to stop, and each check takes Python's lock from the training: a tenth of a small network's step.
thread_pool.IO_TIMEOUT_INTERVAL_S = 0.02


@dataclass(frozen=True)
class Batch:
    """Some images of one split."""

    image_ids: np.ndarray
    """(batch,) str"""
    pixels: Tensor
    """(batch, S, S) grey or (batch, S, S, 3) RGB, uint8"""
    labels: Tensor
    """(batch, findings) float32: 1 present, 0 absent, NaN unknown"""
    attributes: Tensor
    """(batch, NUM_ATTRIBUTES) float32, see models.encode_attributes; (batch, 0) if they are not read"""

    def pin(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies while the CPU continues."""
        return Batch(self.image_ids, *(part.pin_memory() for part in (self.pixels, self.labels, self.attributes)))


def open_split(table: TableVersion, name: str, size_px: int, has_attributes: bool = False) -> Split:
    """Lists the row groups of a split; reads footers only.

    has_attributes: whether age, sex and view will be read too.
    Raises InputError for a size that is not stored, a file that is gone or cut off, or a split without images.
    """
    shards, card = table.shards, table.card
    if size_px not in card.sizes_px:
        raise InputError(
            f"training.size_px is {size_px}, the table at {shards} holds {card.sizes_px}: choose one of these, "
            "or add the size to etl.sizes_px and run the ETL again"
        )
    files = table.files(name)
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
    return Split(name, files, row_groups, size_px, card.channels, has_attributes)


def read_batches(
    split: Split, batch_size: int, rank: int = 0, num_ranks: int = 1, shuffle_seed: int | None = None
) -> Iterator[Batch]:
    """One pass over the rank's rows, each once, in batches of at most batch_size images.

    shuffle_seed: order of the row groups and of the rows inside them; None keeps the table's order.
    More ranks than row groups is allowed here: the last ranks get no batch (validation and test splits are small).
    Raises RuntimeError when the rows read differ from the footers' count.
    """
    num_ranks = min(num_ranks, len(split.row_groups))
    if rank < num_ranks:
        yield from _read_stream(Plan(split, batch_size, num_ranks, num_ranks), rank, shuffle_seed)


def read_steps(plan: Plan, rank: int, shuffle_seed: int, start: int = 0) -> Iterator[list[Batch]]:
    """The rank's images of each step of an epoch from step `start` on, a batch for each of its streams.

    The steps before are read and dropped: reading is many times faster than training.
    """
    streams = [_read_stream(plan, stream, shuffle_seed) for stream in plan.streams_of(rank)]
    for step, batches in enumerate(zip(*streams, strict=True)):
        if step >= start:
            yield list(batches)


def join(parts: list[Batch]) -> Batch:
    """Joins batches into one."""
    if len(parts) == 1:
        return parts[0]

    def joined(tensors: list[Tensor]) -> Tensor:
        # Not torch.cat: it would start OpenMP threads of the reading thread's own, and with more threads than cores
        # OpenMP lets those that train sleep between any two operations: a third of a step's time.
        return torch.from_numpy(np.concatenate([tensor.numpy() for tensor in tensors]))

    return Batch(
        np.concatenate([part.image_ids for part in parts]),
        joined([part.pixels for part in parts]),
        joined([part.labels for part in parts]),
        joined([part.attributes for part in parts]),
    )


def _read_stream(plan: Plan, stream: int, shuffle_seed: int | None) -> Iterator[Batch]:
    pending: list[Batch] = []
    split, sizes = plan.split, plan.sizes(stream)
    step = rows_read = 0
    for row_group in _read_row_groups(split, stream, plan.num_streams, shuffle_seed):
        rows_read += len(row_group.labels)
        pending.append(row_group)
        while step < len(sizes) and sum(len(part.labels) for part in pending) >= sizes[step]:
            joined = join(pending)
            yield _cut(joined, 0, sizes[step])
            # Joining nothing with a row group would copy the row group.
            pending = [_cut(joined, sizes[step], len(joined.labels))] if len(joined.labels) > sizes[step] else []
            step += 1
    expected = split.rows_of(stream, plan.num_streams)
    if rows_read != expected:
        raise RuntimeError(
            f"stream {stream} brought {rows_read} rows of the {split.name} split, the footers say {expected}: the "
            "reader lost data"
        )


def _read_row_groups(split: Split, stream: int, num_streams: int, seed: int | None) -> Iterator[Batch]:
    column, side = image_column(split.size_px), (split.size_px, split.size_px)
    attributes = ("age_years", "sex", "view") if split.has_attributes else ()
    place = locate(split.files[0])
    # One worker, because its order is reproducible; it is several times faster than a training step.
    reader = make_batch_reader(
        [file if "://" in file else f"file://{file}" for file in split.files],
        schema_fields=[f"^{name}$" for name in ("image_id", "findings", column, *attributes)],
        workers_count=1,
        # Row groups that wait in memory for the training step.
        results_queue_size=4,
        cur_shard=stream,
        shard_count=num_streams,
        shuffle_row_groups=seed is not None,
        seed=seed,
        # For a store, petastorm would make a file system that pyarrow's legacy API does not accept.
        filesystem=None if is_local(place) else S3FSWrapper(place.fs),
    )
    rng = np.random.default_rng((seed or 0, stream))
    with reader:
        for rows in reader:
            # petastorm would shuffle by copying all pixels; this copy is needed anyway, because torch wants memory that
            # it may write to.
            order = np.arange(len(rows.image_id)) if seed is None else rng.permutation(len(rows.image_id))
            joined = bytearray().join(getattr(rows, column)[order])
            shape = (-1, *side) if split.channels == 1 else (-1, *side, 3)
            pixels = torch.frombuffer(joined, dtype=torch.uint8).view(shape)
            labels = torch.from_numpy(np.asarray(rows.findings, dtype=np.float32)[order])
            known = torch.empty(len(labels), 0)
            if attributes:
                # petastorm turns a column into strings, nulls too.
                words = [[None if word == "None" else word for word in getattr(rows, n)] for n in attributes[1:]]
                known = torch.from_numpy(encode_attributes(rows.age_years, *words)[order])
            yield Batch(rows.image_id[order], pixels, labels, known)


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    parts = (batch.image_ids, batch.pixels, batch.labels, batch.attributes)
    return Batch(*(part[start:stop] for part in parts))
