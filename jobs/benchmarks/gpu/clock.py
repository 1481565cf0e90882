"""The time that the check may take."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


class TimeIsOver(BaseException):
    """Raised when the time is over. Not an Exception, so that libraries that catch those do not swallow it."""


class Clock:
    """Runs from its making on."""

    def __init__(self, minutes: float):
        self._end = time.monotonic() + 60 * minutes

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """Raises TimeIsOver inside the block as soon as no time is left. For the main thread."""

        def ring(*_: object) -> None:
            raise TimeIsOver

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(self.left_s, 1e-3))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
