"""Row groups of a table in a store, kept on a local disk for the next epoch, the other ranks and the next training.

A library was not found: fsspec's caches keep whole files, or blocks whose index a kill loses, and have no bound;
diskcache, which is also petastorm's, passes its bound, keeps parts of files after a full disk, and unpickles what it
finds. An epoch reads everything once, so the least recently used row group is the next one to be read: what a running
training reads is therefore never dropped for another row group, and what does not fit stays in the store.
"""

import fcntl
import json
import os
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock

import pyarrow as pa

from conf.writing import locked
from etl.contract.row_groups import content_bytes, content_key

CRC_BYTES = 4
RETRY_S = 60
"""after the disk or the cache was full: another training may have ended meanwhile"""
DROPPED_AT_ONCE = 0.05
"""share of the cache that is freed at a time, because each time all entries are listed"""


class RowGroupCache:
    """Files in a folder, one per row group: its table as an Arrow IPC stream, then CRC-32 of its name and the stream.

    Any number of processes may share the folder. Each holds a lock on a file in uses/, which names the Parquet files
    that it reads; a kill frees the lock. A counter, kept under the folder's lock, bounds the bytes of all entries.
    """

    def __init__(self, folder: Path, limit_bytes: int, wanted: Iterable[str], speaks: bool = True):
        """Removes what kills have left, and what no running training reads if that is more than limit_bytes.

        wanted: names of the row groups that will be read, see entry_names. speaks: whether faults of the
        disk are printed, which one process of a host does for all. Raises OSError if the folder is not writable.
        """
        self._folder, self._limit, self._speaks = folder, limit_bytes, speaks
        self._entries, self._uses, self._counter = folder / "row_groups", folder / "uses", folder / "bytes"
        self._said: set[str] = set()
        self._said_lock = Lock()
        self._no_writing_before = 0.0
        with locked(folder, wait=True):
            self._entries.mkdir(exist_ok=True)
            self._uses.mkdir(exist_ok=True)
            mine, others = set(map(_part, wanted)), self._used_parts()
            self._use = self._register(mine)
            entries = self._list()
            for name in entries:
                if _part(name) in mine:
                    os.utime(self._entries / name)
            free = [name for name in entries if not name.startswith(".") and _part(name) not in others]
            # This training's own row groups go last, and only if the limit is lower than it was.
            free.sort(key=lambda name: (_part(name) in mine, entries[name].st_mtime))
            used = sum(entry.st_size for entry in entries.values())
            self._count(self._drop(free, used, self._limit))

    def kept(self, names: Iterable[str]) -> list[str]:
        """Those of these row groups that are on the disk. names: see entry_names."""
        try:
            there = set(os.listdir(self._entries))
        except OSError:
            there = set()
        return [name for name in names if name in there]

    def get(self, name: str, read: Callable[[], pa.Table]) -> pa.Table:
        """A row group from the disk, or else from read(). petastorm's caches have the same method."""
        table = self._read(name)
        if table is None:
            table = read()
            self._keep(name, table)
        return table

    def _read(self, name: str) -> pa.Table | None:
        """The row group of an entry; None if it is absent or damaged."""
        path = self._entries / name
        try:
            # Arrow's memory is used again for the next row group; new memory would take as long as reading.
            with pa.OSFile(str(path)) as file:
                stored = file.read_buffer()
            content = stored.slice(0, max(0, stored.size - CRC_BYTES))
            if stored.slice(content.size).to_pybytes() == _crc(name, content):
                return pa.ipc.open_stream(content).read_all()
            fault = "wrong checksum"
        except FileNotFoundError:
            return None
        except OSError as error:
            fault = error.strerror or str(error)
        self._say("damage", f"{path} is damaged ({fault}): it is read from the store again, as any others like it are")
        try:
            with locked(self._folder, wait=True):
                self._count(self._counted() - path.stat().st_size)
                path.unlink()
        except OSError:
            # Another process was faster, or the disk is broken, which the next write says.
            pass
        return None

    def _keep(self, name: str, table: pa.Table) -> None:
        """Writes an entry, unless there is no room for it. Faults of the disk are said, not raised."""
        # One that is larger than the whole cache leaves the room to others.
        if time.monotonic() < self._no_writing_before or table.nbytes > self._limit:
            return
        try:
            if self._write(name, table):
                return
            self._say("full", f"the cache {self._folder} is full: what it lacks is read from the store in each epoch")
        except OSError as error:
            reason = error.strerror or str(error)
            self._say("disk", f"the cache {self._folder} cannot be written ({reason}): the training continues without")
        self._no_writing_before = time.monotonic() + RETRY_S

    def _write(self, name: str, table: pa.Table) -> bool:
        """Writes an entry and returns True, or returns False if no room can be made for it."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        content = sink.getvalue()
        temporary, size = self._entries / f".{self._use.name}-{uuid.uuid4().hex}", content.size + CRC_BYTES
        try:
            with locked(self._folder, wait=True):
                used = self._counted()
                if used + size > self._limit:
                    used = self._make_room(used, size)
                    self._count(used)
                if used + size > self._limit:
                    return False
                temporary.touch()
                # Whoever lists the entries meanwhile counts the whole size.
                os.truncate(temporary, size)
                self._count(used + size)
            with temporary.open("r+b") as file:
                file.write(content)
                file.write(_crc(name, content))
            with locked(self._folder, wait=True):
                # Another process may have been faster.
                if not (self._entries / name).exists():
                    temporary.rename(self._entries / name)
            return True
        finally:
            if temporary.exists():
                with locked(self._folder, wait=True):
                    self._count(self._counted() - temporary.stat().st_size)
                    temporary.unlink()

    def _make_room(self, used: int, size: int) -> int:
        """Drops what no running training reads, until `size` bytes and some more are free; returns the bytes left."""
        in_use, entries = self._used_parts(), self._list()
        free = [name for name in entries if not name.startswith(".") and _part(name) not in in_use]
        free.sort(key=lambda name: entries[name].st_mtime)
        return self._drop(free, used, max(0, self._limit - max(size, int(DROPPED_AT_ONCE * self._limit))))

    def _drop(self, names: list[str], used: int, limit: int) -> int:
        """Removes entries until at most `limit` bytes are left, or all are gone; returns the bytes left."""
        for name in names:
            if used <= limit:
                break
            used -= (self._entries / name).stat().st_size
            (self._entries / name).unlink()
        return used

    def _list(self) -> dict[str, os.stat_result]:
        """All entries, and those that are being written; removes what killed processes were writing."""
        found, alive = {}, {use.name for use in self._uses.iterdir()}
        for entry in os.scandir(self._entries):
            if entry.name.startswith(".") and entry.name[1:].partition("-")[0] not in alive:
                os.unlink(entry)
            else:
                found[entry.name] = entry.stat()
        return found

    def _register(self, parts: set[str]) -> Path:
        use = self._uses / uuid.uuid4().hex
        # The lock lives as long as this object, or the process.
        self._lock = use.open("w", encoding="utf-8")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        json.dump(sorted(parts), self._lock)
        self._lock.flush()
        return use

    def _used_parts(self) -> set[str]:
        """What running trainings read; removes the files of those that have ended."""
        parts: set[str] = set()
        for use in self._uses.iterdir():
            with use.open(encoding="utf-8") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    use.unlink()
                except BlockingIOError:
                    parts.update(json.load(file))
        return parts

    def _counted(self) -> int:
        """Bytes of all entries, those being written included."""
        try:
            return int(self._counter.read_text())
        except (OSError, ValueError):
            return sum(entry.st_size for entry in self._list().values())

    def _count(self, used: int) -> None:
        # In place and with a fixed length, so that a full disk does not matter.
        with open(os.open(self._counter, os.O_WRONLY | os.O_CREAT, 0o644), "wb", buffering=0) as file:
            file.write(f"{max(used, 0):020}".encode())

    def _say(self, kind: str, message: str) -> None:
        with self._said_lock:
            new = kind not in self._said
            self._said.add(kind)
        if new and (self._speaks or kind == "damage"):
            print(f"note: {message}", file=sys.stderr, flush=True)


def entry_names(files: Iterable[str], columns: list[str]) -> dict[str, int]:
    """Name of each row group of these files, in their order -> its bytes, about."""
    return {
        f"{content_key(file, columns)}-{group}": size
        for file in files
        for group, size in enumerate(content_bytes(file, columns))
    }


def _part(name: str) -> str:
    """Columns and file that a row group belongs to."""
    return name.partition("-")[0]


def _crc(name: str, content: pa.Buffer) -> bytes:
    return zlib.crc32(content, zlib.crc32(name.encode())).to_bytes(CRC_BYTES, "big")
