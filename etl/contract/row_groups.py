"""Row groups of Parquet files, on a disk or in a store: footers once, and of the data only what is wanted."""

import hashlib
import io
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from etl.contract.storage import is_local, locate, patience, version_of

# The footers of the ETL's files have a few kB.
TAIL_BYTES = 1 << 16
MAX_FOOTERS = 10_000
"""footers that are kept, of some kB each"""
GROUPS_AHEAD = 4
"""row groups with pixels that are fetched from a store at the same time; each has some megabytes"""
# Two ranges with a smaller gap are fetched as one: in the time of a round trip, a store sends more bytes than that.
MAX_GAP_BYTES = 1 << 18


@dataclass(frozen=True)
class Footer:
    """The end of a Parquet file. Files of a Delta table never change, so it stays valid."""

    metadata: pq.FileMetaData
    tail: bytes
    """the last bytes of the file, which hold the footer"""
    size: int
    """of the file, bytes"""
    version: str
    """changes if a store has another file at this address, see version_of; empty for local files"""


@lru_cache(MAX_FOOTERS)
def footer_of(file: str) -> Footer:
    """Reads a footer once. Raises OSError or ArrowInvalid for a file that is gone, cut off or no Parquet file."""
    place = locate(file)
    if is_local(place):
        size, version = place.stat().st_size, ""
    else:
        info = place.fs.info(place.path, **patience(place))
        size, version = info["size"], version_of(info)
    tail = _last(place, size, min(size, TAIL_BYTES))
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if len(tail) < needed <= size:
        tail = _last(place, size, needed)
    return Footer(pq.read_metadata(pa.BufferReader(tail)), tail[-needed:], size, version)


def content_key(file: str, columns: Iterable[str]) -> str:
    """A name for these columns of a file; if another file takes its address in a store, it gets another name."""
    footer = footer_of(file)
    what = repr((file, footer.version, footer.tail, sorted(columns)))
    return hashlib.sha256(what.encode()).hexdigest()[:32]


def content_bytes(file: str, columns: Iterable[str]) -> list[int]:
    """Bytes of these columns of each row group in memory, without their encodings and offsets."""
    metadata, names = footer_of(file).metadata, set(columns)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return [sum(chunk.total_uncompressed_size for chunk in _chunks(group, names)) for group in groups]


def read_row_groups(file: str, columns: Iterable[str], groups: Iterable[int] | None = None) -> pa.Table:
    """Reads these columns of some row groups of a file, or of all of them if `groups` is None.

    Only the bytes of these columns are fetched from a store.
    Raises OSError or ArrowInvalid for a file that is gone, cut off or no Parquet file.
    """
    names, footer, place = sorted(columns), footer_of(file), locate(file)
    wanted = list(range(footer.metadata.num_row_groups) if groups is None else groups)
    source = file if is_local(place) else pa.PythonFile(_fetch(place, footer, wanted, names), "r")
    with pq.ParquetFile(source, metadata=footer.metadata) as parquet:
        # Arrow's threads are more than there are cores for; they may still hold the file when the program ends, which
        # would abort it.
        return parquet.read_row_groups(wanted, names, use_threads=False)


class Parts(io.RawIOBase):
    """A file of which only some ranges are there. Raises OSError if another one is read.

    fsspec.parquet has the like, but reads and parses the footer anew for each row group.
    """

    def __init__(self, size: int, parts: dict[int, bytes]):
        """parts: first byte of a range -> its content."""
        self._size, self._parts, self._at = size, parts, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        for start, content in self._parts.items():
            if start <= self._at and stop <= start + len(content):
                found = memoryview(content)[self._at - start : stop - start]
                self._at = stop
                return found
        raise OSError(f"bytes {self._at} to {stop} were not fetched")


def _last(place: UPath, file_size: int, size: int) -> bytes:
    """The last bytes of a file."""
    if not is_local(place):
        # A store refuses to send a range of a file that is empty.
        return place.fs.cat_file(place.path, start=file_size - size, end=file_size, **patience(place)) if size else b""
    with place.open("rb") as source:
        source.seek(file_size - size)
        return source.read(size)


def _fetch(place: UPath, footer: Footer, groups: list[int], columns: list[str]) -> Parts:
    """The ranges of these columns, which the client requests at once."""
    ranges = [one for group in groups for one in _ranges(footer.metadata.row_group(group), columns)]
    starts, stops = (list(ends) for ends in zip(*ranges, strict=True)) if ranges else ([], [])
    paths = [place.path] * len(ranges)
    contents = place.fs.cat_ranges(paths, starts, stops, on_error="raise", **patience(place))
    return Parts(footer.size, dict(zip(starts, contents, strict=True)))


def _chunks(row_group: pq.RowGroupMetaData, columns: Container[str]) -> list[pq.ColumnChunkMetaData]:
    chunks = map(row_group.column, range(row_group.num_columns))
    return [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]


def _ranges(row_group: pq.RowGroupMetaData, columns: list[str]) -> list[tuple[int, int]]:
    """First byte and end of the ranges that hold these columns, neighbours as one."""
    chunks = _chunks(row_group, columns)
    starts = [min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset))) for chunk in chunks]
    wanted = sorted((start, start + chunk.total_compressed_size) for start, chunk in zip(starts, chunks, strict=True))
    ranges = wanted[:1]
    for start, stop in wanted[1:]:
        if start - ranges[-1][1] <= MAX_GAP_BYTES:
            ranges[-1] = ranges[-1][0], max(stop, ranges[-1][1])
        else:
            ranges.append((start, stop))
    return ranges
