"""Runs the set-up's commands: their output goes to a log, one line of progress to the screen, and errors are clear."""

from __future__ import annotations

import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TAIL_LINES = 40
ERROR_LINES = 6
FIRST_ERROR = re.compile(r"CMake Error|\berror: ")
PR_SET_PDEATHSIG = 1  # prctl(2)
LIBC = ctypes.CDLL(None)


class SetupError(Exception):
    """A known problem of the set-up: the message says what failed, where the log is and what to do next."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints what is being done and, at the end, how long it took."""
    started = time.monotonic()
    print(f"set-up: {title}", flush=True)
    yield
    print(f"        done in {duration(time.monotonic() - started)}", flush=True)


def run_logged(
    command: list[str | Path],
    log: Path,
    advice: str,
    status_of: Callable[[str], str | None] = lambda line: None,
    env: dict[str, str] | None = None,
) -> None:
    """Runs `command` with all its output in `log`; raises SetupError with the end of the log if it fails.

    advice: the next step, shown when the command fails.
    status_of: turns a line of output into the text shown as progress; None keeps the text as it is.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb", buffering=0) as sink:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            preexec_fn=end_with_parent,
        )
        with process:
            show_progress(process.stdout.fileno(), sink.write, status_of)
    if process.returncode != 0:
        shown = telling_lines(log.read_text(errors="replace"))
        raise SetupError(
            f"{Path(command[0]).name} ended with exit code {process.returncode}\n{shown}\n"
            f"  whole log: {log}\n  next step: {advice}"
        )


def telling_lines(output: str) -> str:
    """Returns the last lines of a failed command and, if it is above them, the first error of a compiler or CMake."""
    lines = [f"    {line}" for line in output.splitlines() if line.strip()]
    above, last = lines[:-TAIL_LINES], lines[-TAIL_LINES:]
    errors = [index for index, line in enumerate(above) if FIRST_ERROR.search(line)]
    first = ["  first error:", *above[errors[0] : errors[0] + ERROR_LINES]] if errors else []
    return "\n".join([*first, "  last lines:", *last])


def end_with_parent() -> None:
    """Has the kernel kill a command when its set-up is killed, so that it does not write beside the next set-up."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def show_progress(source: int, keep: Callable[[bytes], int], status_of: Callable[[str], str | None]) -> None:
    """Reads `source` to its end; shows status and time every second, or every 15 s if there is no terminal."""
    # The rule of conf/progress.py, which set-up cannot import before tqdm is installed.
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
    every_s = 1 if terminal else 15
    started = shown = time.monotonic()
    status, rest = "", b""
    while True:
        if select.select([source], [], [], 1.0)[0]:
            chunk = os.read(source, 65536)
            if not chunk:
                break
            keep(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                status = status_of(line.decode(errors="replace")) or status
        if time.monotonic() - shown >= every_s:
            shown = time.monotonic()
            text = f"        {duration(shown - started)}  {status}".rstrip()
            if terminal:
                text = f"\r{text[: shutil.get_terminal_size().columns - 1]}\033[K"
            print(text, end="" if terminal else "\n", flush=True)
    if terminal:
        print("\r\033[K", end="", flush=True)


def duration(seconds: float) -> str:
    """Formats seconds for people: `3.2 s`, `3 min 39 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
