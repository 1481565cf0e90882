"""The workspace, in which each stage finds the results of the stage before it."""

import errno
import hashlib
import json
import os
import socket
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from conf.disks import named_if_full
from conf.errors import NO_SPACE, InputError
from conf.places import TABLES, WORKSPACE, place_of
from conf.settings import Settings
from conf.writing import LOCK, atomic_path, locked, write_json

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""errors of flock where a file system, or a server of one, has no locks"""


@dataclass(frozen=True)
class Workspace:
    """Paths of a workspace, all absolute. Asking for a path creates nothing."""

    root: Path
    tracking_server: str = ""
    """address of an MLflow server that keeps runs and models; empty: mlflow.db keeps them"""

    @classmethod
    def of(cls, settings: Settings) -> "Workspace":
        """The workspace of these settings, with their tracking server. A command makes it once and passes it on."""
        return cls.at(settings.workspace, settings.tracking_server)

    @classmethod
    def at(cls, path: str, tracking_server: str = "", setting: str = "workspace") -> "Workspace":
        """The workspace at `path`, which `setting` names.

        Raises InputError if that is a file, or if the libraries below cannot take such a path.
        """
        root = Path(place_of(setting, path, WORKSPACE))
        if root.exists() and not root.is_dir():
            raise InputError(f"{setting} {root} is a file, expected a folder: choose another with --{setting}")
        return cls(root, tracking_server)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other commands, on any host, out of this workspace while the context is open.

        The folder is made if missing, and removed again if it stays empty. A kill frees the workspace. Raises
        InputError if another command is at work there, or if the file system has no locks.
        """
        with ExitStack() as stack:
            try:
                lock = stack.enter_context(locked(self.root, wait=False))
            except BlockingIOError:
                raise InputError(
                    f"another command is using {self.root}{_holder(self.root)}: wait until it ends, or choose another "
                    "workspace"
                ) from None
            except OSError as error:
                if error.errno in NO_SPACE:
                    raise
                raise InputError(_unusable(self.root, error)) from error
            own = f"{Path(sys.argv[0]).name} on {socket.gethostname()}, process {os.getpid()}"
            with named_if_full(self.root):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{own}, since {datetime.now():%Y-%m-%d %H:%M}".encode(), 0)
                # Otherwise another client of NFS would read it only when this file is closed.
                os.fsync(lock)
            try:
                yield
            finally:
                if [path.name for path in self.root.iterdir()] == [LOCK]:
                    (self.root / LOCK).unlink()
                    # NFS keeps a removed file under another name while it is open.
                    with suppress(OSError):
                        self.root.rmdir()

    def tables(self, elsewhere: str) -> tuple[str, str]:
        """Folders or addresses of the tables of shards and quarantine. elsewhere: etl.table; empty: the workspace.

        Raises InputError for a place that the libraries below cannot take.
        """
        # Absolute, because a Spark worker on another machine runs in another folder.
        root = place_of("etl.table", elsewhere, TABLES) if elsewhere else str(self.root)
        if Path(root).is_file():
            raise InputError(f"etl.table {root} is a file, expected a folder: choose another with --etl.table")
        setting = "etl.table" if elsewhere else "workspace"
        # Each by itself, because it may be a link to another disk.
        shards, quarantine = (place_of(setting, f"{root}/{name}", TABLES) for name in ("shards", "quarantine"))
        return shards, quarantine

    @property
    def store(self) -> str | Path:
        """Where MLflow keeps runs and models: the server's address, or the database's file."""
        return self.tracking_server or self.tracking_db

    @property
    def has_store(self) -> bool:
        """Whether the store exists. For a mistyped path, MLflow would make a database, which takes seconds."""
        return bool(self.tracking_server) or self.tracking_db.exists()

    def check_database(self) -> None:
        """Raises InputError if the workspace is to keep the tracking database and its file system cannot hold one."""
        if self.has_store:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with (
                tempfile.TemporaryDirectory(dir=self.root, prefix=".mlflow-") as folder,
                closing(sqlite3.connect(f"{folder}/tried.db", timeout=1)) as database,
            ):
                database.execute("CREATE TABLE tried (value)")
        except sqlite3.Error as error:
            raise InputError(
                f"the file system of workspace {self.root} cannot hold MLflow's database, an SQLite file ({error}): "
                "keep runs and models on a server (`mlflow server` on a host with a local disk) by --tracking_server, "
                "or choose a workspace on a local disk"
            ) from error

    @property
    def unsent(self) -> Path:
        """File with the calls that the tracking server has missed, one file per server."""
        return self.root / f"mlflow_unsent_{hashlib.sha256(self.tracking_server.encode()).hexdigest()[:8]}.json"

    @property
    def identity(self) -> str:
        """A name that stays when the folder moves, made on first use; it tells the workspaces of a server apart."""
        file = self.root / ".identity"
        if not file.exists():
            with atomic_path(file) as temporary:
                temporary.write_text(uuid.uuid4().hex, encoding="utf-8")
        return file.read_text(encoding="utf-8")

    phantoms = property(lambda self: self.root / "phantoms")
    shards = property(lambda self: self.root / "shards")
    quarantine = property(lambda self: self.root / "quarantine")
    dicom_paths = property(lambda self: self.root / "dicom_paths.csv")
    card = property(lambda self: self.root / "card.json")
    card_page = property(lambda self: self.root / "card.html")
    figures = property(lambda self: self.root / "figures")
    events = property(lambda self: self.root / "tensorboard")
    checkpoints = property(lambda self: self.root / "checkpoints")
    model = property(lambda self: self.root / "model")
    lungs = property(lambda self: self.root / "lungs")
    tracking_db = property(lambda self: self.root / "mlflow.db")
    artifacts = property(lambda self: self.root / "mlartifacts")
    evaluation = property(lambda self: self.root / "evaluation.json")
    predictions = property(lambda self: self.root / "predictions.parquet")
    label_quality = property(lambda self: self.root / "label_quality")
    scores = property(lambda self: self.root / "scores")
    summary = property(lambda self: self.root / "summary.json")

    def external(self, site: str) -> Path:
        """Folder of the external test on the films of this site: their table if the ETL made it, and the results."""
        return self.root / "external" / site


def _holder(root: Path) -> str:
    """Who has the workspace locked, in brackets; empty if the holder has ended meanwhile or has not said so yet."""
    try:
        holder = (root / LOCK).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f" ({holder})" if holder else ""


def _unusable(root: Path, error: OSError) -> str:
    if error.errno not in NO_LOCKS:
        what = f"workspace {root} cannot be {'locked' if root.is_dir() else 'made'}"
        return f"{what} ({error.strerror}): check the right to write there, or choose another with --workspace"
    return (
        f"the file system of workspace {root} has no locks ({error.strerror}), so two commands could write there at "
        "once: choose a workspace on a local disk, or on NFS that is mounted with locks, by --workspace"
    )


def find_workspaces(files: Iterable[str]) -> set[str]:
    """The folders among these that are workspaces. files: all files below a folder, as paths below it.

    A workspace is known by the ETL's card and what a stage leaves beside it, that of an ensemble by its files. The top
    folder itself is never counted.
    """
    names = ("card.json", "card.html", "summary.json", "mlflow.db", "evaluation.json", "predictions.parquet")
    having: dict[str, set[str]] = {name: set() for name in names}
    for file in files:
        folder, _, name = file.rpartition("/")
        if name in having and folder:
            having[name].add(folder)
    # MLflow alone makes a database wherever it is started.
    of_stages = having["card.json"] & (having["card.html"] | having["summary.json"] | having["mlflow.db"])
    return of_stages | having["evaluation.json"] & having["predictions.parquet"] & having["summary.json"]


def stored_place(place: str, root: Path) -> str:
    """How a file of the workspace at `root` names a place: relative if it lies in there, so that it may move along."""
    inside = "://" not in place and Path(place).is_relative_to(root)
    return str(Path(place).relative_to(root)) if inside else place


def opened_place(stored: str, root: Path) -> str:
    """The reverse of stored_place, for the workspace that is now at `root`."""
    return stored if "://" in stored else str(root / stored)


def update_summary(workspace: Workspace, **sections: dict) -> None:
    """Merges each section into the section of that name in summary.json, so that every stage adds its own part."""
    summary = json.loads(workspace.summary.read_text(encoding="utf-8")) if workspace.summary.exists() else {}
    for name, content in sections.items():
        summary[name] = {**summary.get(name, {}), **content}
    write_json(workspace.summary, summary)
