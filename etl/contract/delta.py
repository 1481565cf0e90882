"""Any Delta table: opened wherever it lies, its properties, its old versions. No rows and no cards."""

import errno
import os
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from deltalake import DeltaTable, PostCommitHookProperties
from deltalake.exceptions import DeltaError, TableNotFoundError

from conf.errors import InputError
from conf.progress import say
from etl.contract.storage import reason_of, unreachable

# A model may have been trained on an old version, so the log must stay, and every reader must read what it names.
FOR_EVER = "interval 36500 days"
KEEP_HISTORY = {
    "delta.logRetentionDuration": FOR_EVER,
    "delta.enableExpiredLogCleanup": "false",
    # Spark refuses older versions even if their files exist (since Delta 4; the default is a week).
    "delta.deletedFileRetentionDuration": FOR_EVER,
}
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""what link() answers on a file system without hard links"""
KEEP_LOG_NOW = PostCommitHookProperties(cleanup_expired_logs=False)


def open_table(table: str, to_write: bool = False) -> DeltaTable | None:
    """The newest version; None if there is no table. Raises InputError for a store that fails and a damaged table.

    to_write: whether commits are to follow.
    """
    try:
        return DeltaTable(table, storage_options=store_options(table, to_write))
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise InputError(_unopened(table, error)) from error


def _unopened(table: str, error: Exception) -> str:
    """The message for a table that exists, or may exist, and that deltalake cannot open."""
    if isinstance(error, OSError) or "://" in table:
        return unreachable(table, error)
    return (
        f"the Delta table at {table} cannot be opened ({reason_of(error)}): restore its _delta_log from a backup, or "
        "choose another place"
    )


def keep_history(table: str) -> None:
    """Sets what an existing table lacks of KEEP_HISTORY, as tables of older releases do, in a commit of its own.

    The commit changes no row, and a value that somebody has set stays. A table that cannot be written to is named on
    standard error: it can be read, and updated once it can be written to.
    """
    deltatable = open_table(table, to_write=True)
    if deltatable is None:
        return
    lacking = {name: value for name, value in KEEP_HISTORY.items() if name not in deltatable.metadata().configuration}
    if not lacking:
        return
    try:
        deltatable.alter.set_table_properties(lacking, post_commithook_properties=KEEP_LOG_NOW)
    except (DeltaError, OSError) as error:
        print(
            f"note: Spark reads no version of {table} that is older than a week, until a run of this command can set "
            f"the table's properties ({reason_of(error)})",
            file=sys.stderr,
            flush=True,
        )


def vacuum(table: str, keep_versions: set[int], retention_hours: int) -> list[str]:
    """Removes data files that are in none of these versions nor were in the newest one within the last hours.

    Also what killed runs have left, once it is that old. Returns the files. The log stays whole.
    """
    return DeltaTable(table, storage_options=store_options(table, to_write=True)).vacuum(
        retention_hours,
        dry_run=False,
        # Delta's own minimum of a week protects unknown readers; here the versions to keep are named.
        enforce_retention_duration=False,
        full=True,
        keep_versions=sorted(keep_versions),
        post_commithook_properties=KEEP_LOG_NOW,
    )


def store_options(table: str, to_write: bool = False) -> dict[str, str] | None:
    """Options that deltalake needs for a place; keys and addresses of stores come from the environment.

    to_write: whether it is to commit there. deltalake makes a commit by a hard link, which never replaces another
    program's commit. Where there are none, as on a volume of Databricks or a share of Windows, it has to rename.
    """
    if "://" not in str(table):
        return {"allow_unsafe_rename": "true"} if to_write and not _has_hard_links(Path(table)) else None
    if not str(table).startswith("s3"):
        return None
    insecure = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"aws_conditional_put": "etag", **({"AWS_ALLOW_HTTP": "true"} if insecure else {})}


@cache
def _has_hard_links(table: Path) -> bool:
    """Whether the file system of a table has hard links. True if nothing can be written there, which a commit says."""
    there = next(folder for folder in (table, *table.parents) if folder.exists())
    try:
        with TemporaryDirectory(dir=there, prefix=".links-") as folder:
            file = Path(folder, "file")
            file.touch()
            file.with_name("link").hardlink_to(file)
    except OSError as error:
        if error.errno in NO_LINKS:
            say(
                f"{table} is on a file system without hard links: let no other program write to it, because one of two "
                "commits at the same moment could be lost"
            )
            return False
    return True
