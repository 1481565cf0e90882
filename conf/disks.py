"""The errors of a disk that is full or gone, whatever a library has made of them."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conf.errors import LOST, NO_SPACE, InputError

# As the system and SQLite say it, in the text of other libraries' exceptions.
FULL = re.compile("No space left on device|Disk quota exceeded|disk is full")
BROKEN = re.compile("disk I/O error")
"""how SQLite says that the disk fails, full or not"""
STREAM = re.compile("PytorchStreamWriter|inline_container|iostream|file write failed")
"""how torch and OpenVINO say that they cannot write, for whatever reason"""


@contextmanager
def named_if_full(place: str | Path) -> Iterator[None]:
    """Turns the error of a full disk, or of one that is gone, into an OSError that names `place`, where this writes.

    place: a file, a folder, or the address of a server. By itself such an error names no file, or the one that is being
    copied, or is of a library, which may not even say that the disk is full. run_command ends on it with a message.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        number = _fault_of(str(place), error)
        if not number:
            raise
        raise OSError(number, os.strerror(number), _full_place(str(place), error)) from error


def is_of_disk(error: BaseException) -> bool:
    """Whether this is the error of a full disk or a lost one, as `named_if_full` raises it."""
    return isinstance(error, OSError) and error.errno in NO_SPACE + LOST


def _fault_of(place: str, error: Exception) -> int:
    """The errno of a full disk or a lost one; 0 if the error is another."""
    for one in _chain(error):
        if is_of_disk(one):
            return one.errno
    said = " ".join(str(one) for one in _chain(error))
    if FULL.search(said):
        return errno.ENOSPC
    if "://" in place:
        return 0
    try:
        is_full = os.statvfs(_folder(Path(place))).f_bavail == 0
    except OSError as lost:
        return lost.errno if lost.errno in LOST else 0
    if is_full and (BROKEN.search(said) or STREAM.search(said)):
        return errno.ENOSPC
    return errno.EIO if BROKEN.search(said) else 0


def _full_place(place: str, error: Exception) -> str:
    """`place`, or a file that an error names on another disk, such as that of temporary files or of the table."""
    for one in _chain(error):
        named = is_of_disk(one) and (one.filename2 or one.filename)
        if named and (one.errno in LOST or "://" in place):
            return str(named)
        try:
            if named and os.stat(_folder(Path(named))).st_dev != os.stat(_folder(Path(place))).st_dev:
                return str(named)
        except OSError:
            continue
    return place


def _folder(path: Path) -> Path:
    """The nearest part of the path that exists. Raises OSError if that cannot be asked."""
    for part in (path, *path.parents):
        with suppress(FileNotFoundError):
            os.stat(part)
            break
    return part


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised for."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
