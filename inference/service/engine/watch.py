"""A process that asks the registry again and again which version of the registered model is the champion.

    python -m inference.service.engine.watch ROOT TRACKING_SERVER NAME EVERY_S        started by champion.py

Importing mlflow takes seconds, and a registry that hangs blocks only this process. Each look writes a line of JSON to
standard output, and one more before a model's files are fetched. The process ends when its standard input is closed,
which happens when the service ends.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from conf.workspace import Workspace

# Characters of a log line; a database's error may quote the whole query.
MAX_DETAIL = 500


@dataclass(frozen=True)
class Look:
    """What the registry answered."""

    reachable: bool
    version: int | None = None
    """the champion; None if there is none, if the registry was not reached, or if its files cannot be fetched"""
    folder: str = ""
    """where its files are; empty while they are fetched, after which a second look at the same version follows"""
    reason: str = ""
    """why there is no version to open, for everybody"""
    detail: str = ""
    """the same with paths and addresses, for the log"""
    tested: list[dict] = field(default_factory=list)
    """summaries of the version's external tests, see inference/external/record.py"""


def start_watch(workspace: Workspace, name: str, every_s: float) -> subprocess.Popen:
    """Starts the process; each line of its output is a Look as JSON."""
    arguments = [str(workspace.root), workspace.tracking_server, name, str(every_s)]
    return subprocess.Popen(
        [sys.executable, "-m", "inference.service.engine.watch", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C is for the service, which then ends this process.
        start_new_session=True,
    )


def main() -> None:
    root, server, name, every_s = sys.argv[1:]
    workspace = Workspace.at(root, server)
    identity = _identity(workspace)
    # What a library prints must not be read as a look.
    output, sys.stdout = sys.stdout, sys.stderr
    while True:
        for found in look(workspace, name):
            print(json.dumps(asdict(found)), file=output, flush=True)
        if select.select([sys.stdin], [], [], float(every_s))[0]:
            return
        if identity not in (None, now := _identity(workspace)) and now is not None:
            # Another database has replaced the one that mlflow has open.
            os.execv(sys.executable, [sys.executable, "-m", "inference.service.engine.watch", *sys.argv[1:]])
        identity = identity or now


def look(workspace: Workspace, name: str) -> Iterator[Look]:
    """Asks the registry once; the last look is the complete one. Errors are reported in a look, not raised."""
    if not workspace.has_store:
        yield Look(False, reason="there is no registry", detail=f"there is no {workspace.tracking_db}")
        return
    from inference.model.registry import champion_version, fetch_model, tests_of

    try:
        version = champion_version(workspace, name)
    # mlflow, its database, its server and its stores raise errors of many libraries: here, and for the files.
    except Exception as error:
        yield _failed(False, "the registry cannot be read", error)
        return
    if version is None:
        yield Look(True, reason=f"no version of {name} is the champion")
        return
    yield Look(True, version, reason=f"version {version} is being fetched")
    try:
        folder = str(fetch_model(workspace, name, version))
        yield Look(True, version, folder, tested=tests_of(workspace, name, version))
    except Exception as error:
        yield _failed(True, f"version {version} is the champion, but its files cannot be fetched", error)


def _failed(reachable: bool, what: str, error: Exception) -> Look:
    kind = type(error.__cause__ or error).__name__
    return Look(reachable, reason=f"{what} ({kind})", detail=" ".join(f"{kind}: {error}".split())[:MAX_DETAIL])


def _identity(workspace: Workspace) -> tuple[int, int] | None:
    """Returns device and inode of the registry's file; None if there is no such file."""
    if workspace.tracking_server or not workspace.tracking_db.exists():
        return None
    status = workspace.tracking_db.stat()
    return status.st_dev, status.st_ino


if __name__ == "__main__":
    main()
