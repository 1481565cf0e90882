"""Processes that tests look for."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def wait_for(found: Callable, seconds: float = 60, every_s: float = 0.1):
    """Waits until found() is true, and returns its result."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, f"{found} stayed false for {seconds} s"
        time.sleep(every_s)
    return result


def wait_until_group_is_gone(group: int) -> None:
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("processes were left behind")


def children(parent: int, module: str) -> list[int]:
    """Returns the child processes of `parent` that run this module."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(state[1]) == parent and module in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
