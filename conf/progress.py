"""Progress of long work: a bar on a terminal; in a file, a pipe or a scheduler's log a plain line now and then.

The one owner of tqdm. A line names the work, how much of it is done, the mean rate since the start, and the time left:

    images to shards: 12,000 of 112,120, 180/s, 9 min left
    images to shards: 112,120 of 112,120 in 10 min, 180/s
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic
from typing import Self, TextIO, TypeVar

from tqdm import tqdm

LINE_EVERY_S = 30
Item = TypeVar("Item")


class Progress:
    """The progress of one piece of work, on standard error."""

    def __init__(
        self,
        title: str,
        total: int,
        unit: str = "image",
        *,
        done: int = 0,
        shown: bool = True,
        end: bool = True,
        smooth: bool = True,
    ):
        """done: steps that an earlier process did. shown: False for all ranks but one.

        end: whether a line says that the work has ended; False if the command says so itself. smooth: whether the bar's
        rate follows the last seconds instead of the whole time.
        """
        self.title, self.total, self.done, self.first, self.end = title, total, done, done, end
        self.lines = shown and not is_terminal(sys.stderr)
        smoothing = 0.3 if smooth else 0
        self.bar = tqdm(
            total=total, initial=done, unit=unit, desc=title, smoothing=smoothing, disable=not shown or self.lines
        )
        self.started = self.said = monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def update(self, steps: int = 1) -> None:
        """Counts steps that were done, which may be 0: call it often, so that a line comes in time."""
        self.done += steps
        self.bar.update(steps)
        if self.lines and monotonic() - self.said >= LINE_EVERY_S:
            self.said = monotonic()
            self._say(self._state())

    def write(self, line: str) -> None:
        """Prints a line on standard output without breaking the bar."""
        say(line, sys.stdout)

    def close(self) -> None:
        """Ends the bar; in a log, says how much was done in what time. Further calls do nothing."""
        self.bar.close()
        if self.lines and self.end and self.done > self.first:
            seconds = monotonic() - self.started
            whole = self.done >= self.total
            took = f" in {duration(seconds)}{self._rate(seconds)}" if whole else f", stopped after {duration(seconds)}"
            self._say(f"{self._done()}{took}")
        self.lines = False

    def _state(self) -> str:
        seconds, steps = self.said - self.started, self.done - self.first
        if not steps:
            return f"{self._done()} after {duration(seconds)}"
        return f"{self._done()}{self._rate(seconds)}, {duration((self.total - self.done) * seconds / steps)} left"

    def _done(self) -> str:
        return f"{self.done:,} of {self.total:,}"

    def _rate(self, seconds: float) -> str:
        if not seconds:
            return ""
        rate = (self.done - self.first) / seconds
        return f", {rate:,.0f}/s" if rate >= 10 else f", {rate:.2g}/s"

    def _say(self, state: str) -> None:
        print(f"{self.title}: {state}", file=sys.stderr, flush=True)


def track(items: Iterable[Item], title: str, total: int, unit: str = "image", *, end: bool = True) -> Iterator[Item]:
    """Yields the items, and counts each one as done when the next one is asked for. end: as for Progress."""
    with Progress(title, total, unit, end=end) as bar:
        for item in items:
            yield item
            bar.update()


def say(line: str, stream: TextIO | None = None) -> None:
    """Prints a line at once, above a bar if there is one; on standard error unless `stream` is given."""
    stream = stream or sys.stderr
    tqdm.write(line, file=stream)
    stream.flush()


def is_terminal(stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a line can be drawn again there: not in a file or pipe, on a dumb terminal or in the log of a CI run.

    Under horovodrun and spark-submit a process writes into a pipe, whatever the launcher writes to.
    """
    if stream is None or not stream.isatty() or environ.get("TERM") == "dumb":
        return False
    return environ.get("CI", "").lower() in ("", "0", "false")


def duration(seconds: float) -> str:
    """Seconds for people: `3.2 s`, `70 s`, `9 min`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
