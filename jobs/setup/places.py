"""Where set-up reads and writes: the project, its environment and this machine's cache."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# The environment is made from the Python that runs set-up, so the two have the same version.
PYTHON_VERSION = "{}.{}".format(*sys.version_info)
SITE_PACKAGES = VENV / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
PYSPARK = SITE_PACKAGES / "pyspark"
STATE = VENV / "chexscale-setup.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "chexscale")
LOGS = CACHE / "logs"


def read_state() -> dict:
    """Reads the state that finished steps left in the environment: one key per step, empty if there is none."""
    try:
        return json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_state(state: dict) -> None:
    """Replaces the state in one step; a kill leaves the old state."""
    temporary = STATE.with_suffix(".new")
    temporary.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    temporary.replace(STATE)


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """Yields an empty folder on the disk of `parent`, from which finished work moves to its place in one step.

    Folders that a killed set-up left there are removed first; this is safe because only one set-up runs at a time.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in parent.glob("new-*"):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="new-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Holds `lock` against every other set-up; the kernel releases it when this process ends, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another set-up is running on this machine; waiting for it", flush=True)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
