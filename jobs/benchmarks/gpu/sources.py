"""A local Parquet file of random images, with two ways of reading its row groups."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etl.contract.schema import LABELS, image_column
from jobs.benchmarks.gpu.plan import READER
from jobs.benchmarks.training.fed import NUM_FINDINGS
from training.reading.plan import Plan, Source, Split

ROWS_PER_GROUP = 128
"""the ETL's default"""
# Module -> package, of all that training's reader imports and a bare machine may lack.
READER_NEEDS = {"petastorm": "petastorm", "deltalake": "deltalake", "upath": "universal-pathlib"}


def write_file(folder: Path, num_rows: int, size_px: int) -> Path:
    """Writes the columns of a table's file that training reads; an earlier call's file is taken again."""
    path = folder / f"{num_rows}_{size_px}.parquet"
    if path.exists():
        return path
    column, rng = image_column(size_px), np.random.default_rng(0)
    schema = pa.schema([LABELS.field("image_id"), LABELS.field("findings"), pa.field(column, pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, num_rows, ROWS_PER_GROUP):
            rows = min(ROWS_PER_GROUP, num_rows - start)
            names = [str(start + row) for row in range(rows)]
            labels = rng.integers(0, 2, (rows, NUM_FINDINGS)).astype(np.float32)
            images = [rng.bytes(size_px**2) for _ in range(rows)]
            writer.write_table(pa.table([names, pa.array(list(labels), schema.field(1).type), images], schema=schema))
    return path


def split_of(path: Path, size_px: int, batches_from: str) -> Split:
    metadata = pq.read_metadata(path)
    row_groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    return Split("train", [str(path)], row_groups, size_px, source=_source(batches_from))


def missing_for_reader() -> list[str]:
    """The packages that training's reader needs and that are not installed."""
    return [package for module, package in READER_NEEDS.items() if importlib.util.find_spec(module) is None]


def _source(batches_from: str) -> Source:
    if batches_from != READER:
        return read_plainly
    # Imported here, because a machine may lack its packages.
    from training.reading.readers import read_shards

    return read_shards


def read_plainly(
    plan: Plan, columns: list[str], stream: int, seed: int | None, skip_rows: int
) -> Iterator[tuple[int, pa.Table | None]]:
    """A source of one stream from its start: reads the only file's row groups with pyarrow alone."""
    assert plan.num_streams == 1 and not skip_rows
    with pq.ParquetFile(plan.split.files[0]) as file:
        for index in np.random.default_rng(seed).permutation(file.num_row_groups):
            table = file.read_row_group(int(index), columns, use_threads=False)
            yield len(table), table
