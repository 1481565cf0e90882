"""Decodes image files to films, several at a time, in the order given, with few of them in memory.

Decoding runs in processes of its own, because a file may crash its decoder, and because compressed DICOM files are
decoded in a fork (etl/contract/images/dicom/decode.py), which is safe only without computing threads. The processes
import the main program's file again, so it must import slow packages inside its functions.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process

from inference.files.image_files import ImageFile
from inference.film.films import DECODER_DIED, Film, read_film
from inference.model.properties import Properties

# Files per process, so that no process waits for the one before its own.
FILES_IN_WORK = 4


@dataclass(frozen=True)
class Decoded:
    """A file, with its film or the reason why it has none."""

    path: str
    film: Film | None
    fault: str | None


class FileDecoders:
    """A pool of `number` processes, started at once, so that they are ready when the model is."""

    def __init__(self, number: int):
        self._number = number
        self._start()

    def __enter__(self) -> "FileDecoders":
        return self

    def __exit__(self, *_) -> None:
        self._end()

    def decode(self, files: Iterable[ImageFile], properties: Properties, shown_px: int) -> Iterator[Decoded]:
        """Each file's film, or its fault, in the files' order; arguments as for load_film.

        A file whose process dies, perhaps out of memory, is tried once more by itself.
        """
        remaining = iter(files)
        waiting: deque[tuple[ImageFile, Future]] = deque()
        while True:
            while len(waiting) < FILES_IN_WORK * self._number and (file := next(remaining, None)):
                waiting.append((file, self._submit(file, properties, shown_px)))
            if not waiting:
                return
            file, future = waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:
                self._restart()
                yield self._decode_alone(file, properties, shown_px)
                waiting = deque((file, self._submit(file, properties, shown_px)) for file, _ in waiting)

    def _submit(self, file: ImageFile, properties: Properties, shown_px: int) -> Future:
        try:
            return self._pool.submit(decode_file, file, properties, shown_px)
        except BrokenProcessPool as error:
            # Raised later, where the results of this pool are awaited in order.
            broken: Future = Future()
            broken.set_exception(error)
            return broken

    def _decode_alone(self, file: ImageFile, properties: Properties, shown_px: int) -> Decoded:
        try:
            return self._submit(file, properties, shown_px).result()
        except BrokenProcessPool:
            self._restart()
            return Decoded(file.path, None, DECODER_DIED)

    def _end(self) -> None:
        # Waits for the few files in progress: the end of a pool and that of Python interfere (CPython 3.11).
        self._pool.shutdown(cancel_futures=True)

    def _restart(self) -> None:
        self._end()
        self._start()

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(self._number, get_context("spawn"), _end_with_parent)
        # Only this process handles Ctrl-C; the others inherit that it is blocked.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            # The pool starts one process per submitted task, up to its number.
            for _ in range(self._number):
                self._pool.submit(os.getpid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def decode_file(file: ImageFile, properties: Properties, shown_px: int) -> Decoded:
    """Reads and decodes one file; arguments as for load_film."""
    if file.fault:
        return Decoded(file.path, None, file.fault)

    def read(limit: int) -> bytes:
        with open(file.path, "rb") as opened:
            return opened.read(limit)

    found = read_film(read, properties, shown_px)
    return Decoded(file.path, found, None) if isinstance(found, Film) else Decoded(file.path, None, found.reason)


def _end_with_parent() -> None:
    """Ends this process when its parent ends in any way; the pool would leave it waiting for ever."""

    def wait_and_end() -> None:
        connection.wait([parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()
