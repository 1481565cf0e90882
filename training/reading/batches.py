"""From row groups to batches: shuffled, joined and cut to the sizes of the plan, each row once."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from etl.contract.schema import image_column, mask_column
from training.network.attributes import encode_attributes
from training.reading.plan import Plan, Split
from training.reading.regions import region_of


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
    """(batch, NUM_ATTRIBUTES) float32, see attributes.encode_attributes; (batch, 0) if they are not read"""
    boxes: np.ndarray | None = None
    """(batch,) of arrays (n, 5) float32: index of the finding, left, top, width, height; None if they are not read"""
    regions: Tensor | None = None
    """(batch, REGION_PX, REGION_PX) float32, see region_of; None if masks are not read"""

    def pin(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies while the CPU continues."""
        tensors = (part.pin_memory() for part in (self.pixels, self.labels, self.attributes))
        return Batch(self.image_ids, *tensors, self.boxes, None if self.regions is None else self.regions.pin_memory())


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

    Row groups that hold earlier steps only are not read.
    """
    streams = [_read_stream(plan, stream, shuffle_seed, start) for stream in plan.streams_of(rank)]
    yield from map(list, zip(*streams, strict=True))


def columns_of(split: Split) -> list[str]:
    """The columns of the table that are read."""
    attributes = ("age_years", "sex", "view") if split.has_attributes else ()
    boxes = ("boxes",) if split.has_boxes else ()
    masks = (mask_column(split.size_px),) if split.has_regions else ()
    return ["image_id", "findings", image_column(split.size_px), *attributes, *boxes, *masks]


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
        None if parts[0].boxes is None else np.concatenate([part.boxes for part in parts]),
        None if parts[0].regions is None else joined([part.regions for part in parts]),
    )


def _read_stream(plan: Plan, stream: int, shuffle_seed: int | None, start: int = 0) -> Iterator[Batch]:
    """The stream's batch of each step from step `start` on."""
    pending: list[Batch] = []
    split, sizes = plan.split, plan.sizes(stream)
    skip_rows, step, rows_read = sum(sizes[:start]), start, 0
    for rows, row_group in _read_row_groups(plan, stream, shuffle_seed, skip_rows):
        rows_read += rows
        if row_group is None:
            continue
        before = rows_read - rows
        pending.append(row_group if before >= skip_rows else _cut(row_group, skip_rows - before, rows))
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


def _read_row_groups(plan: Plan, stream: int, seed: int | None, skip_rows: int) -> Iterator[tuple[int, Batch | None]]:
    """Number of rows and content of each row group; None for one that lies in the first `skip_rows` rows."""
    split = plan.split
    rng = np.random.default_rng((seed or 0, stream))
    with closing(split.source(plan, columns_of(split), stream, seed, skip_rows)) as row_groups:
        for rows, table in row_groups:
            order = np.arange(rows) if seed is None else rng.permutation(rows)
            yield rows, None if table is None else _to_batch(table, order, split)


def _to_batch(table: pa.Table, order: np.ndarray, split: Split) -> Batch:
    """The rows of a row group in this order, copied once, because torch wants memory that it may write to."""
    rows, side = len(order), split.size_px
    shape = (rows, side, side) if split.channels == 1 else (rows, side, side, 3)
    pixels = _values(table[image_column(side)], np.uint8).reshape(rows, -1).take(order, axis=0).reshape(shape)
    labels = _values(table["findings"], np.float32).reshape(rows, -1)[order]
    known = torch.empty(rows, 0)
    if split.has_attributes:
        columns = (table[name].to_pylist() for name in ("age_years", "sex", "view"))
        known = torch.from_numpy(encode_attributes(*columns)[order])
    image_ids = np.array(table["image_id"].to_pylist(), dtype=str)[order]
    boxes = None
    if split.has_boxes:
        boxes, lists = np.empty(rows, object), table["boxes"].to_pylist()
        for place, row in enumerate(order):
            boxes[place] = np.array(lists[row], np.float32).reshape(-1, 5)
    regions = None
    if split.has_regions:
        masks = table[mask_column(side)].to_pylist()
        regions = torch.from_numpy(np.stack([region_of(masks[row], side) for row in order]))
    return Batch(image_ids, torch.from_numpy(pixels), torch.from_numpy(labels), known, boxes, regions)


def _values(column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    """All values of a column of byte strings, or of lists of numbers, one after the other; NaN for a missing number."""
    whole = column.combine_chunks()
    if pa.types.is_list(whole.type):
        return whole.flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    offsets = np.frombuffer(whole.buffers()[1], np.int32)[whole.offset : whole.offset + len(whole) + 1]
    return np.frombuffer(whole.buffers()[2], dtype)[offsets[0] : offsets[-1]]


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    parts = (batch.image_ids, batch.pixels, batch.labels, batch.attributes)
    others = (None if part is None else part[start:stop] for part in (batch.boxes, batch.regions))
    return Batch(*(part[start:stop] for part in parts), *others)
