"""Addresses of artifacts in the workspace's mlflow.db, which MLflow keeps absolute although a workspace may move.

A command that reads turns an address into a path of the workspace that is open (`path_of`): it needs no right to write,
and one workspace may be seen at several places. A command that writes first makes the database name the workspace that
is open (`settle`), because MLflow writes where its database says. So a copy neither reads nor writes in its original.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.entities import ViewType

from conf.errors import InputError
from conf.workspace import Workspace

# Where MLflow 3 keeps addresses: table, column.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def path_of(workspace: Workspace, address: str) -> Path | None:
    """The local path of an artifact, below the open workspace if it was below the place where the database was made.

    None for an address that is no local path, such as one of a store. The path need not exist.
    """
    for root in _roots(workspace):
        if address == root or address.startswith(f"{root}/"):
            return workspace.artifacts / _local(address).relative_to(_local(root))
    return _local(address) if urlsplit(address).scheme in ("", "file") else None


def has_moved(workspace: Workspace) -> bool:
    """Whether the database names another place than the open workspace."""
    return bool(_elsewhere(workspace))


def settle(workspace: Workspace) -> None:
    """Makes the database name the open workspace, in one transaction, if it was moved or copied, and says so.

    The workspace is locked by the caller, because another command may be writing to the addresses that change.
    Raises InputError if the database cannot be written to.
    """
    elsewhere = _elsewhere(workspace)
    if not elsewhere:
        return
    old, name = ", ".join(str(_local(root).parent) for root in elsewhere), workspace.tracking_db.name
    here, number = workspace.artifacts.as_uri(), 0
    try:
        with closing(sqlite3.connect(workspace.tracking_db)) as database, database:
            for root in elsewhere:
                for table, column in COLUMNS:
                    changed = database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE substr({column} || '/', 1, ?) = ?",
                        (here, len(root) + 1, len(root) + 1, f"{root}/"),
                    )
                    number += changed.rowcount
    except sqlite3.Error as error:
        raise InputError(
            f"{workspace.tracking_db} names files below {old}, from where the workspace was moved or copied, and "
            f"cannot be changed ({error}): grant the right to write, and end other programs that use the workspace"
        ) from error
    print(f"This workspace was moved or copied from {old}: {number} addresses in {name} now name {workspace.root}")


def _elsewhere(workspace: Workspace) -> list[str]:
    """The roots that are not the open workspace. Another path to the same folder, such as a link, is the same."""
    if workspace.tracking_server:
        return []
    return [root for root in _roots(workspace) if not _is_same(_local(root).parent, workspace.root)]


def _roots(workspace: Workspace) -> list[str]:
    """Addresses of the workspace's folder of artifacts, as its experiments were made with; usually one."""
    experiments = mlflow.MlflowClient().search_experiments(ViewType.ALL)
    locations = {experiment.artifact_location for experiment in experiments}
    ending = f"/{workspace.artifacts.name}"
    return sorted(place for place in locations if place.endswith(ending) and urlsplit(place).scheme in ("", "file"))


def _local(address: str) -> Path:
    parts = urlsplit(address)
    return Path(unquote(parts.path) if parts.scheme else address)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
