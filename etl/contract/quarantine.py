"""The Delta table of quarantined images: one row per image that the ETL left out for what is in its file."""

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from conf.errors import InputError
from etl.contract.delta import KEEP_HISTORY, store_options
from etl.contract.storage import unreachable

QUARANTINE = pa.schema([(name, pa.string()) for name in ("image_id", "path", "reason", "file_version", "same_as")])
"""file_version: null if the file was not read; same_as: the image that this one is a copy of, otherwise null"""


def kinds_of(reasons: pd.Series) -> pd.Series:
    """The kind of each quarantine reason: the text before its first colon, without the particulars."""
    return reasons.astype(str).str.split(":").str[0].str.strip()


def read_quarantine(table: str, version: int) -> pd.DataFrame:
    """The quarantined images of a version, with the columns of QUARANTINE. Raises InputError if it cannot be read."""
    try:
        bad = DeltaTable(table, version=version, storage_options=store_options(table))
        return bad.to_pyarrow_table().to_pandas()
    except (DeltaError, OSError) as error:
        raise InputError(
            f"version {version} of {table} cannot be read ({error}): add --rebuild to rebuild the table"
        ) from error


def write_quarantine(table: str, bad: pd.DataFrame) -> int:
    """Writes one row per bad image (columns of QUARANTINE) as one new version; returns its number."""
    rows = pa.Table.from_pandas(bad[QUARANTINE.names], QUARANTINE, preserve_index=False)
    options = store_options(table, to_write=True)
    try:
        write_deltalake(
            table,
            rows,
            mode="overwrite",
            schema_mode="overwrite",
            configuration=KEEP_HISTORY,
            storage_options=options,
        )
        return DeltaTable(table, storage_options=options).version()
    except (DeltaError, OSError) as error:
        raise InputError(unreachable(table, error)) from error
