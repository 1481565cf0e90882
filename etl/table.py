"""Delta tables without Spark: versions, files, and the few rows that need none. The one owner of deltalake."""

from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from conf.errors import InputError
from etl.schema import SPLITS


def latest_version(table: Path) -> int | None:
    """The table's newest version; None where there is no table."""
    try:
        return DeltaTable(table).version()
    except TableNotFoundError:
        return None


def read_rows(table: Path, version: int, columns: list[str]) -> pd.DataFrame:
    """These columns, and `split`, of every row of one version; the pixels stay unread."""
    parts = [pd.DataFrame(columns=[*columns, "split"])]
    for split in SPLITS:
        for file in snapshot_files(table, version, split):
            parts.append(pq.read_table(file, columns=columns).to_pandas().assign(split=split))
    return pd.concat(parts, ignore_index=True)


def write_quarantine(table: Path, bad: pd.DataFrame) -> int:
    """Writes one row per bad image (image_id, path, reason) as one new version; returns its number.

    Not by Spark: the rows are few and already here.
    """
    schema = pa.schema([(name, pa.string()) for name in ("image_id", "path", "reason")])
    rows = pa.Table.from_pandas(bad[schema.names], schema, preserve_index=False)
    write_deltalake(table, rows, mode="overwrite", schema_mode="overwrite")
    return DeltaTable(table).version()


def table_id(table: Path) -> str:
    """The identity that Delta gave the table when it was made; a table made anew in the same place has another."""
    return DeltaTable(table).metadata().id


def snapshot_files(table: Path, version: int, split: str) -> list[str]:
    """Parquet files of one split in one version of the table, sorted absolute paths.

    The folder also holds files of other versions, so it must never be listed. Raises InputError where there is no table
    or the version is gone.
    """
    try:
        snapshot = DeltaTable(table, version=version)
    except TableNotFoundError as error:
        raise InputError(f"no Delta table at {table}: run `spark-submit etl/preprocess.py` first") from error
    except DeltaError as error:
        raise InputError(f"version {version} of {table} cannot be read ({error}): run the ETL again") from error
    uris = snapshot.file_uris(file_pruning_predicate=[("split", "=", split)])
    # Absolute paths, but with a blank as %20.
    return sorted(unquote(uri) for uri in uris)
