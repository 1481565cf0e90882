"""The time that all tries at quantising may take together (inference.max_minutes)."""

from dataclasses import dataclass
from math import inf
from threading import Event
from time import monotonic
from typing import Self

import numpy as np

from conf.progress import duration
from inference.model.graphs import Answer, Predict

INTERRUPTED = Event()
"""set by Ctrl-C while work runs in a thread of its own"""


class TimeIsUp(Exception):
    """A try would not end, or has not ended, in the time that is left; the message says of what."""


@dataclass(frozen=True)
class TimeLimit:
    """A moment at which work must have ended. Work asks often; nothing is interrupted from outside."""

    end_s: float = inf
    """in seconds of the monotonic clock; inf: never"""

    @classmethod
    def after(cls, minutes: float) -> Self:
        """The limit that many minutes from now; 0: none."""
        return cls(monotonic() + 60 * minutes) if minutes else cls()

    @property
    def left_s(self) -> float:
        """Seconds left, 0 or more; inf without a limit."""
        return max(0.0, self.end_s - monotonic())

    def earlier(self, seconds: float) -> Self:
        """The limit that leaves `seconds` for what comes afterwards."""
        return type(self)(self.end_s - seconds)

    def check(self, work: str, needed_s: float = 0) -> None:
        """Raises TimeIsUp if `work`, which needs `needed_s` seconds more, will not end in time; follows Ctrl-C."""
        if INTERRUPTED.is_set():
            raise KeyboardInterrupt
        if needed_s > self.left_s:
            raise TimeIsUp(f"{work} would take about {duration(needed_s)}, and {duration(self.left_s)} are left")
        if not self.left_s:
            raise TimeIsUp(f"{work} did not end in time")

    def checked(self, predict: Predict, work: str) -> Predict:
        """The same function, which asks before each batch whether there is time for it."""

        def within(*inputs: np.ndarray) -> Answer:
            self.check(work)
            return predict(*inputs)

        return within


NO_LIMIT = TimeLimit()
