"""Opens the splits of a table, and reads their row groups from a disk or a store."""

from collections.abc import Iterator

import pyarrow as pa

from conf.errors import InputError
from etl.contract.ahead import map_files
from etl.contract.row_groups import footer_of
from etl.contract.storage import is_local, locate, unreachable
from etl.contract.version import TableVersion
from training.reading.cache import RowGroupCache, entry_names
from training.reading.plan import Plan, Split
from training.reading.streams import read_stream

# From a disk, one row group at a time is several times faster than training. A store needs several at a time, because
# each takes a round trip. A rank with several streams shares them among these.
LOCAL_WORKERS, STORE_WORKERS = 1, 8
WAITING = 4
"""row groups of a stream that wait in memory for the training step, beside those that are being fetched"""


def open_split(
    table: TableVersion,
    name: str,
    size_px: int,
    has_attributes: bool = False,
    has_boxes: bool = False,
    has_regions: bool = False,
) -> Split:
    """Lists the row groups of a split; reads footers only.

    has_attributes, has_boxes, has_regions: whether age, sex and view, the findings' boxes, and the lungs' masks will be
    read too.
    Raises InputError for a size that is not stored, a file that is gone or cut off, or a split without images.
    """
    shards, card = table.shards, table.card
    if size_px not in card.sizes_px:
        raise InputError(
            f"training.size_px is {size_px}, the table at {shards} holds {card.sizes_px}: choose one of these, "
            "or add the size to etl.sizes_px and run the ETL again"
        )
    files = table.files(name)
    row_groups: list[int] = []
    footers = map_files(footer_of, files)
    for file in files:
        try:
            metadata = next(footers).metadata
        except Exception as error:
            if "://" in file and not isinstance(error, (FileNotFoundError, pa.ArrowInvalid)):
                raise InputError(unreachable(file, error)) from error
            if not isinstance(error, (OSError, pa.ArrowInvalid)):
                raise
            raise InputError(
                f"{file}, part of version {card.delta_version} of {shards}, cannot be read ({error}): run the ETL again"
            ) from error
        row_groups += [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    if not row_groups:
        raise InputError(f"the {name} split of {shards} (version {card.delta_version}) has no images: check the lists")
    reads = (has_attributes, has_boxes, has_regions)
    return Split(name, files, row_groups, size_px, card.channels, *reads, read_shards)


def read_shards(
    plan: Plan,
    columns: list[str],
    stream: int,
    seed: int | None,
    skip_rows: int,
    cache: RowGroupCache | None = None,
) -> Iterator[tuple[int, pa.Table | None]]:
    """The source of a table's splits, see plan.Source; raises InputError for a row group that cannot be read.

    cache: keeps row groups of a store on a local disk.
    """
    split, streams_of_rank = plan.split, plan.num_streams // plan.num_ranks
    local = is_local(locate(split.files[0]))
    local = local or (cache is not None and _is_cached(cache, split.files, columns, stream, plan.num_streams))
    workers = LOCAL_WORKERS if local else max(1, STORE_WORKERS // streams_of_rank)
    return read_stream(
        split.files,
        split.row_groups,
        columns,
        stream,
        plan.num_streams,
        seed=seed,
        skip_rows=skip_rows,
        workers=workers,
        ahead=workers + WAITING,
        cache=cache,
    )


def _is_cached(cache: RowGroupCache, files: list[str], columns: list[str], stream: int, num_streams: int) -> bool:
    """Whether the cache has all row groups of the stream."""
    names = list(entry_names(files, columns))[stream::num_streams]
    return len(cache.kept(names)) == len(names)
