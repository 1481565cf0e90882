"""Work on files one after the other, of which those in a store are fetched ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import tee
from typing import TypeVar

from etl.contract.storage import read_bytes

Work = TypeVar("Work")
FETCHES = 16
"""files of a store that are fetched ahead: so many make up for two round trips of 30 ms beside the decoding of films"""
AHEAD_BYTES = 32_000_000
"""of a file that is fetched ahead; films have less"""


def fetch_ahead(addresses: Iterable[str], limit: int = -1) -> Iterator[Callable[[], bytes]]:
    """For each file, in order, a function that returns its content, see read_bytes, or raises what that raises.

    Local files are read when the function is called. Of files in a store, FETCHES are on their way or wait in memory
    while the caller works on another one, AHEAD_BYTES of each; the function fetches a larger one.
    """
    first = AHEAD_BYTES if limit < 0 else min(limit, AHEAD_BYTES)
    addresses, again = tee(addresses)
    calls = ((path, partial(read_bytes, path, first if "://" in path else limit)) for path in again)
    with closing(call_ahead(calls, FETCHES)) as begun:
        for path, read in zip(addresses, begun, strict=True):
            yield partial(_whole, read, path, limit) if "://" in path else read


def call_ahead(calls: Iterable[tuple[str, Callable[[], Work]]], number: int) -> Iterator[Callable[[], Work]]:
    """For each call, in order, a function that gives its result or raises its error.

    calls: with the address that each one reads. Those that read a store begin while the caller works on an earlier one,
    `number` of them; the others when the function is called.
    """
    waiting: deque[Callable[[], Work]] = deque()
    # Without a file in a store, no thread is started.
    threads = ThreadPoolExecutor(number)
    try:
        for address, call in calls:
            waiting.append(threads.submit(call).result if "://" in address else call)
            if len(waiting) > number:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        threads.shutdown(cancel_futures=True)


def map_files(work: Callable[[str], Work], addresses: Iterable[str]) -> Iterator[Work]:
    """work(address) for each, in order; for files in a store, FETCHES at a time."""
    with closing(call_ahead(((address, partial(work, address)) for address in addresses), FETCHES)) as results:
        for result in results:
            yield result()


def _whole(read: Callable[[], bytes], address: str, limit: int) -> bytes:
    """What was fetched of a file ahead, or the whole file if it may be larger than that."""
    content = read()
    return content if len(content) < AHEAD_BYTES else read_bytes(address, limit)
