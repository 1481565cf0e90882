"""Versions of the Delta table without Spark: the one owner of deltalake."""

from pathlib import Path
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from conf.errors import InputError


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
