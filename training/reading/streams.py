"""Row groups of a stream in a fixed order, several of them fetched at once. The only file that imports petastorm."""

import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from conf.errors import InputError
from etl.contract.row_groups import content_key, footer_of, read_row_groups
from etl.contract.storage import is_of_a_store, reason_of, store_advice
from training.reading.cache import RowGroupCache

# petastorm calls pyarrow's legacy API, which warns of its removal on every call. The lock file pins a pyarrow that has
# it.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
warnings.filterwarnings("ignore", category=FutureWarning, message="The pyarrow.filesystem")

from petastorm.arrow_reader_worker import ArrowReaderWorker  # noqa: E402, the filter must come first
from petastorm.cache import NullCache  # noqa: E402
from petastorm.reader import Reader  # noqa: E402
from petastorm.workers_pool import EmptyResultError, thread_pool  # noqa: E402
from pyarrow.filesystem import FileSystem  # noqa: E402

# petastorm's worker has read ahead and waits for room nearly all the time. By default it checks a thousand times a
# second whether to stop, and each check takes Python's lock from the training: a tenth of a small network's step.
thread_pool.IO_TIMEOUT_INTERVAL_S = 0.02
# How often a thread that waits looks whether it is to stop, and whether another thread has decided what comes next.
POLL_S, WAIT_S = 0.1, 0.001


def read_stream(
    split_files: list[str],
    row_groups: list[int],
    columns: list[str],
    stream: int,
    num_streams: int,
    *,
    seed: int | None,
    workers: int,
    ahead: int,
    skip_rows: int = 0,
    cache: RowGroupCache | None = None,
) -> Iterator[tuple[int, pa.Table | None]]:
    """Number of rows and content of each row group of a stream, in an order that depends on the seed alone.

    row_groups: rows of each row group of all files. seed: None keeps the table's order. workers: row groups that are
    fetched at the same time. ahead: row groups that wait for the consumer, those being fetched included. skip_rows: row
    groups that lie in the first so many rows are not read, and their content is None. cache: asked for a row group
    before it is read. Raises what reading a row group raises.
    """
    pool = OrderedPool(workers, ahead, row_groups, skip_rows)
    reader = Reader(
        Footers(),
        split_files,
        schema_fields=[f"^{name}$" for name in columns],
        reader_pool=pool,
        worker_class=RowGroupWorker,
        seed=seed,
        shuffle_row_groups=seed is not None,
        cur_shard=stream,
        shard_count=num_streams,
        cache=cache,
        is_batched_reader=True,
    )
    early: dict[int, pa.Table | Exception] = {}
    with reader:
        while (piece := pool.next_piece()) is not None:
            if piece in pool.skipped:
                yield row_groups[piece], None
                continue
            while piece not in early:
                found, content = next(reader)
                early[found] = content
            content = early.pop(piece)
            if isinstance(content, Exception):
                raise content
            pool.room.release()
            yield content.num_rows, content


class OrderedPool(thread_pool.ThreadPool):
    """petastorm's pool of threads, which remembers the order of the row groups and does not run far ahead of it."""

    def __init__(self, workers: int, ahead: int, row_groups: list[int], skip_rows: int):
        super().__init__(workers, results_queue_size=ahead)
        self.room = threading.Semaphore(ahead)
        self.skipped: set[int] = set()
        self._row_groups, self._skip_rows = row_groups, skip_rows
        self._order: list[int] = []
        self._taken = 0

    def ventilate(self, piece_index: int, **rest: object) -> None:
        """Hands a row group to the workers, as soon as there is room. petastorm calls it in the order of the seed."""
        # Otherwise petastorm, too, would bound how far it runs ahead, by sleeping.
        self._ventilator.processed_item()
        rows = self._row_groups[piece_index]
        if rows <= self._skip_rows:
            self._skip_rows -= rows
            self.skipped.add(piece_index)
        else:
            self._skip_rows = 0
            while not self.room.acquire(timeout=POLL_S):
                if self._ventilator.completed():
                    return
            super().ventilate(piece_index=piece_index, **rest)
        self._order.append(piece_index)

    def next_piece(self) -> int | None:
        """Index of the next row group in the order; None after the last one."""
        while self._taken == len(self._order):
            if self._ventilator.completed() and self._taken == len(self._order):
                return None
            self._stop_event.wait(WAIT_S)
        self._taken += 1
        return self._order[self._taken - 1]


class RowGroupWorker(ArrowReaderWorker):
    """Publishes a row group with its index, or the exception that reading it raised."""

    def process(self, piece_index: int, worker_predicate: None, shuffle_row_drop_partition: tuple[int, int]) -> None:
        piece, started = self._split_pieces[piece_index], time.monotonic()
        try:
            read = partial(read_row_groups, piece.path, self._schema.fields, [piece.row_group])
            if isinstance(self._local_cache, NullCache):
                content = read()
            else:
                key = content_key(piece.path, self._schema.fields)
                content = self._local_cache.get(f"{key}-{piece.row_group}", read)
        # petastorm would print the traceback of any exception; this one is raised where the row group is awaited.
        except Exception as error:
            content = error
            if isinstance(error, (OSError, pa.ArrowInvalid)) or is_of_a_store(error):
                content = InputError(_unread(piece.path, piece.row_group, error, time.monotonic() - started))
        self.publish_func((piece_index, content))

    @staticmethod
    def new_results_queue_reader() -> "_Results":
        return _Results()


def _unread(file: str, row_group: int, error: Exception, seconds: float) -> str:
    check = f"the store{store_advice(file)}" if "://" in file else "the disk"
    return (
        f"row group {row_group} of {file} cannot be read ({reason_of(error)}; tried for {seconds:.0f} s): "
        f"check {check}, and start the same command with --resume, which continues from the last saved state"
    )


class _Results:
    batched_output = True

    def read_next(self, pool: OrderedPool, schema: object, ngram: None) -> tuple[int, pa.Table | Exception]:
        try:
            return pool.get_results()
        except EmptyResultError:
            raise StopIteration from None


class Footers(FileSystem):
    """Shows petastorm the footers of files, which is all that it reads itself."""

    def isfile(self, path: str) -> bool:
        return True

    def isdir(self, path: str) -> bool:
        return False

    def open(self, path: str, mode: str = "rb") -> pa.NativeFile:
        return pa.BufferReader(footer_of(path).tail)
