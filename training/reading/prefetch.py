"""Makes batches ready in a thread while the model computes."""

import queue
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import TypeVar

Item = TypeVar("Item")
# Steps that wait in memory; more than one only helps a reader that is just about as fast as the model.
DEPTH = 2
# How soon the thread notices that its batches are no longer wanted.
POLL_S = 0.1


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yields the items in their order, up to DEPTH of them made before they are asked for.

    items: a generator, which runs in a thread. The thread ends when the items do or when this generator is closed. An
    error that `items` raises is raised here.
    """
    ready: queue.Queue = queue.Queue(DEPTH)
    unwanted = threading.Event()

    def put(kind: str, value: object) -> None:
        while not unwanted.is_set():
            try:
                ready.put((kind, value), timeout=POLL_S)
                break
            except queue.Full:
                continue

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    put("item", item)
                    if unwanted.is_set():
                        return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        unwanted.set()
        thread.join()
