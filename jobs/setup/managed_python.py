"""Has uv supply a Python if the machine has none that fits. Any Python 3.7 or later can read this file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from jobs.setup.commands import SetupError, run_logged, step
from jobs.setup.installer import find_uv, is_uv_missing, uv_environment
from jobs.setup.places import CACHE, LOGS, only_one

VERSION = "3.11"
FETCHES_UV = (3, 10)  # the Python that installer.fetch_uv needs
ADVICE = (
    "uv downloads Python from GitHub; where GitHub is not reached, name a mirror in UV_PYTHON_INSTALL_MIRROR (uv's "
    "documentation, `uv python install`), or install Python 3.11 or 3.12 and its headers, and put it on PATH. Then run "
    "set-up again"
)


def is_possible() -> bool:
    """Whether uv is here, or this Python can fetch it with pip."""
    return not is_uv_missing() or sys.version_info >= FETCHES_UV


def start_again(root: Path) -> None:
    """Replaces this process by a set-up that runs with uv's Python, which uv downloads once; does not return.

    The headers come with it. Raises SetupError if uv cannot supply it.
    """
    with only_one(CACHE / "setup.lock"):
        uv = find_uv()
        title = f"no Python 3.11 or 3.12 on PATH: taking Python {VERSION} from uv, which downloads it once"
        with step(title):
            # By default uv would also put a `python3.11` into ~/.local/bin.
            install = [uv, "python", "install", "--no-bin", VERSION]
            run_logged(install, LOGS / "python.log", ADVICE, env=uv_environment())
    python = managed_python(uv)
    print(f"set-up: continuing with {python}", flush=True)
    os.chdir(root)
    os.execv(python, [python, "-m", "jobs.setup"])


def managed_python(uv: Path) -> str:
    """Returns the path of the Python that uv has installed."""
    find = [str(uv), "python", "find", "--managed-python", "--system", VERSION]
    found = subprocess.run(find, capture_output=True, env=uv_environment())
    if found.returncode:
        raise SetupError(f"{' '.join(find)}: {found.stderr.decode(errors='replace').strip()}\n  next step: {ADVICE}")
    return found.stdout.decode().strip()
