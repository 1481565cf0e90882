"""Locks and atomic writes, on local disks and on file systems that several machines share, such as NFS."""

import ctypes
import errno
import fcntl
import glob
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from conf.disks import named_if_full

BUILDING, OLD = "building", "old"
LOCK = ".lock"
"""file in a folder that whoever works in the folder has locked"""
REMOVED = (errno.ENOENT, errno.ESTALE)
"""errors for a file that another process has removed, on this host or over NFS"""
MAX_TRIES = 100


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[int]:
    """Keeps other processes out of this folder while the context is open; makes the folder if missing.

    Yields the descriptor of the folder's file LOCK. A kill frees the folder. wait: whether to wait for another process;
    otherwise that raises BlockingIOError. Raises OSError for a file system without locks.
    """
    opened = _open_locked(folder, wait)
    try:
        yield opened
    finally:
        os.close(opened)


def _open_locked(folder: Path, wait: bool) -> int:
    for tries_left in reversed(range(MAX_TRIES)):
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                # The server of a shared file system sees no lock on a folder, nor on a file that is opened for reading.
                opened = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
                stack.callback(os.close, opened)
                # Whoever may write into the folder may lock it, whatever the umask of the one who made the file.
                if os.fstat(opened).st_uid == os.geteuid():
                    os.fchmod(opened, folder.stat().st_mode & 0o666)
                fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                # Opening the folder makes an NFS client ask its server which files are there now.
                os.listdir(folder)
                # Not if the process that had it locked until now has removed it.
                if os.path.samestat(os.fstat(opened), os.stat(folder / LOCK)):
                    stack.pop_all()
                    return opened
            except OSError as error:
                if error.errno not in REMOVED or not tries_left:
                    raise
    raise OSError(errno.EBUSY, "removed by other processes each time it was locked", str(folder / LOCK))


@contextmanager
def atomic_path(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there replaces `path` in one step at the end.

    A kill or an error leaves the old file. The parent folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with named_if_full(path):
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
    """Yields an empty folder beside `path`, which replaces `path` at the end.

    An error or a kill leaves the old folder. Only where the file system cannot exchange two folders in one step (NFS,
    FUSE) may a kill between two renames leave it beside `path`, which is then missing; the next call puts it back.
    One process at a time may call this, see `locked`. The next call removes what a kill left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path)
    # A name of its own each time: NFS keeps files that are open elsewhere, and so a folder that was to be removed.
    mark = uuid.uuid4().hex
    building, old = (path.with_name(f".{path.name}-{role}-{mark}") for role in (BUILDING, OLD))
    try:
        with named_if_full(path):
            building.mkdir()
            yield building
            if not path.exists():
                building.rename(path)
            elif not _exchange(building, path):
                path.rename(old)
                building.rename(path)
    finally:
        _tidy(path)


def _tidy(path: Path) -> None:
    """Puts back the folder that was at `path`, if a kill has left it beside it, and removes all others from there."""
    olds, unfinished = (list(path.parent.glob(f".{glob.escape(path.name)}-{role}-*")) for role in (OLD, BUILDING))
    if olds and not path.exists():
        olds.pop().rename(path)
    for left in (*olds, *unfinished):
        shutil.rmtree(left, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names in one step by renameat2, which Python lacks; rename() replaces only empty folders.

    Returns False if the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd, rename_exchange = -100, 2  # fcntl.h, linux/fs.h; both paths are absolute
    return libc.renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), rename_exchange) == 0


def write_json(path: Path, content: dict) -> None:
    """Writes `content` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
