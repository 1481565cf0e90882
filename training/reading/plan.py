"""Which images each rank reads in each step: plain arithmetic over row groups, nothing is read.

A stream has the row groups with `index % num_streams == stream`. Their numbers of rows are known from the Parquet
footers, so every rank can compute every stream's batches. Each row is read once per epoch, and streams with fewer rows
take slightly smaller batches instead of fewer steps. A rank reads one stream, or several side by side. As long as the
number of streams stays the same, a step has the same images on any number of ranks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.errors import InputError
from conf.words import counted

if TYPE_CHECKING:
    import pyarrow as pa

Source = Callable[["Plan", list[str], int, int | None, int], Iterator[tuple[int, "pa.Table | None"]]]
"""A generator function of (plan, columns, stream, seed, skip_rows), which reads the row groups of a stream. It yields
the number of rows and the content of each one, in an order that depends on the seed alone; seed None keeps the table's
order. Row groups that lie in the first skip_rows rows are not read, and their content is None."""


@dataclass(frozen=True)
class Split:
    """The row groups of one split of one table version at one resolution."""

    name: str
    files: list[str]
    row_groups: list[int]
    """rows of each row group, in the reader's order"""
    size_px: int
    channels: int = 1
    """1 grey, 3 RGB"""
    has_attributes: bool = False
    """whether age, sex and view are read too"""
    has_boxes: bool = False
    """whether the findings' boxes are read too"""
    has_regions: bool = False
    """whether masks are read too, as regions, see regions.py"""
    source: Source | None = None
    """what reads its row groups; None if nothing will be read"""

    @property
    def rows(self) -> int:
        return sum(self.row_groups)

    def rows_of(self, stream: int, num_streams: int) -> int:
        """Rows that `stream` of `num_streams` reads in an epoch."""
        return sum(self.row_groups[stream::num_streams])


@dataclass(frozen=True)
class Plan:
    """How many images each stream contributes to each step of an epoch, and which rank reads it."""

    split: Split
    batch_size: int
    """images per rank and step, at most"""
    num_ranks: int
    num_streams: int

    @classmethod
    def of(cls, split: Split, batch_size: int, num_ranks: int, num_streams: int = 0) -> "Plan":
        """Makes a plan in which every rank has at least one image in every step.

        num_streams: a multiple of num_ranks; 0: one per rank. Raises InputError if no such plan exists.
        """
        plan = cls(split, batch_size, num_ranks, num_streams or num_ranks)
        plan._check()
        return plan

    @property
    def images_per_step(self) -> int:
        """Largest number of images in a step, over all ranks."""
        return self.batch_size * self.num_ranks

    @property
    def steps(self) -> int:
        """Number of steps in an epoch, the same on every rank."""
        longest = max(self.split.rows_of(stream, self.num_streams) for stream in range(self.num_streams))
        return math.ceil(longest / self._images_per_stream)

    def sizes(self, stream: int) -> list[int]:
        """Images that `stream` contributes to each step of an epoch."""
        rows, steps = self.split.rows_of(stream, self.num_streams), self.steps
        return [rows * (step + 1) // steps - rows * step // steps for step in range(steps)]

    def streams_of(self, rank: int) -> range:
        """The streams that `rank` reads: neighbours, so that a step's images have one order on any number of ranks."""
        each = self.num_streams // self.num_ranks
        return range(rank * each, (rank + 1) * each)

    @property
    def global_sizes(self) -> list[int]:
        """Images in each step of an epoch, over all ranks."""
        return [sum(sizes) for sizes in zip(*map(self.sizes, range(self.num_streams)), strict=True)]

    def describe(self) -> dict[str, int]:
        """The numbers that decide which images a step has: images per step of all ranks, and streams."""
        return {"images_per_step": self.images_per_step, "parallel_streams": self.num_streams}

    def sizes_of(self, rank: int) -> list[int]:
        """Images in each step of an epoch on `rank`."""
        return [sum(sizes) for sizes in zip(*map(self.sizes, self.streams_of(rank)), strict=True)]

    @property
    def smallest_step(self) -> int:
        """Images in the smallest step of any rank."""
        return min(min(self.sizes_of(rank)) for rank in range(self.num_ranks))

    @property
    def _images_per_stream(self) -> int:
        return self.images_per_step // self.num_streams

    def _check(self) -> None:
        equation = f"training.streams ({self.num_streams}) to be a multiple of the ranks ({self.num_ranks})"
        if self.num_streams % self.num_ranks:
            raise InputError(f"expected {equation}: change training.streams or the number of ranks")
        if self.images_per_step % self.num_streams:
            raise InputError(
                f"training.batch_size ({self.batch_size}) * ranks ({self.num_ranks}) is not a multiple of "
                f"training.streams ({self.num_streams}): change one of them"
            )
        if self.num_ranks > self.split.rows:
            raise InputError(
                f"{counted(self.num_ranks, 'rank')}, and the {self.split.name} split has "
                f"{counted(self.split.rows, 'image')}: start at most {counted(self.split.rows, 'rank')}"
            )
        if self.images_per_step > self.split.rows:
            raise InputError(
                f"training.batch_size ({self.batch_size}) * ranks ({self.num_ranks}) = {self.images_per_step} images "
                f"per step, and the {self.split.name} split has {self.split.rows}: lower training.batch_size"
            )
        row_groups = len(self.split.row_groups)
        if self.num_streams > row_groups:
            wanted = counted(self.num_streams, "rank" if self.num_streams == self.num_ranks else "stream")
            raise InputError(
                f"{wanted} and {counted(row_groups, 'row group')} in the {self.split.name} split: use at "
                f"most {row_groups}, or run the ETL with a smaller etl.rows_per_row_group"
            )
        for rank in range(self.num_ranks):
            sizes = self.sizes_of(rank)
            if min(sizes) == 0:
                raise InputError(
                    f"rank {rank} of {self.num_ranks} has {counted(sum(sizes), 'row')} for "
                    f"{counted(len(sizes), 'step')}: raise training.batch_size ({self.batch_size}), start fewer ranks, "
                    "or run the ETL with a smaller etl.rows_per_row_group"
                )
