"""The workspace, in which each stage finds the results of the stage before it, and atomic writes into it."""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.places import TABLES, WORKSPACE, place_of
from conf.settings import Settings


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
        """Keeps other commands out of this workspace while the context is open; raises InputError if one is at work.

        The folder is made if missing, and removed again if it stays empty. A kill frees the workspace.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.root, wait=False))
            except BlockingIOError:
                raise InputError(
                    f"another command is using {self.root}: wait until it ends, or choose another workspace"
                ) from None
            except OSError as error:
                raise InputError(
                    f"workspace {self.root} cannot be made ({error.strerror}): choose another with --workspace"
                ) from error
            try:
                yield
            finally:
                if not any(self.root.iterdir()):
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
    checkpoints = property(lambda self: self.root / "checkpoints")
    model = property(lambda self: self.root / "model")
    tracking_db = property(lambda self: self.root / "mlflow.db")
    artifacts = property(lambda self: self.root / "mlartifacts")
    evaluation = property(lambda self: self.root / "evaluation.json")
    predictions = property(lambda self: self.root / "predictions.parquet")
    scores = property(lambda self: self.root / "scores")
    summary = property(lambda self: self.root / "summary.json")


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


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[None]:
    """Keeps other processes out of this folder while the context is open; makes the folder if missing.

    A kill frees the folder. wait: whether to wait for another process; otherwise that raises BlockingIOError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(opened)


@contextmanager
def atomic_path(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there replaces `path` in one step at the end.

    A kill or an error leaves the old file. The parent folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`, which replaces `path` in one step at the end.

    A kill or an error leaves the old folder. The next call removes what a kill left beside it.
    Raises InputError, before anything is written, if the file system cannot exchange folders in one step.
    """
    building, empty = (path.with_name(f".{path.name}-{role}") for role in ("building", "empty"))
    for left_by_a_kill in (building, empty):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        empty.mkdir()
        _exchange(building, empty)
        yield building
        if path.exists():
            _exchange(building, path)
        else:
            building.rename(path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(empty, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Exchanges two names in one step by renameat2, which Python lacks; rename() replaces only empty folders."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd, rename_exchange = -100, 2  # fcntl.h, linux/fs.h; both paths are absolute
    if libc.renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), rename_exchange):
        raise InputError(
            f"{other.parent} cannot exchange two folders in one step ({os.strerror(ctypes.get_errno())}): "
            "put the workspace on a local disk"
        )


def write_json(path: Path, content: dict) -> None:
    """Writes `content` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def update_summary(workspace: Workspace, **sections: dict) -> None:
    """Merges each section into the section of that name in summary.json, so that every stage adds its own part."""
    summary = json.loads(workspace.summary.read_text(encoding="utf-8")) if workspace.summary.exists() else {}
    for name, content in sections.items():
        summary[name] = {**summary.get(name, {}), **content}
    write_json(workspace.summary, summary)
