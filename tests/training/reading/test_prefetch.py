import threading
import time

import pytest

from training.reading.prefetch import DEPTH, prefetch


def threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def test_items_come_in_their_order_and_the_thread_ends():
    assert list(prefetch(iter(x for x in range(20)))) == list(range(20))
    assert threads() == 0


def test_a_few_are_made_before_they_are_asked_for():
    made = []

    def items():
        for number in range(10):
            made.append(number)
            yield number

    ready = prefetch(items())
    assert next(ready) == 0
    end = time.monotonic() + 5
    while len(made) < DEPTH + 2 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == DEPTH + 2
    ready.close()


def test_an_error_of_the_reader_is_raised_after_its_items():
    def items():
        yield 1
        raise RuntimeError("lost data")

    ready = prefetch(items())
    assert next(ready) == 1
    with pytest.raises(RuntimeError, match="lost data"):
        next(ready)
    assert threads() == 0


def test_closing_it_closes_the_reader():
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    ready = prefetch(items())
    next(ready)
    ready.close()
    assert closed == [True]
    assert threads() == 0
