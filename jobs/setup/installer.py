"""Finds uv, which installs everything else: the machine's own, or a pinned version in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from jobs.setup.commands import run_logged, step
from jobs.setup.places import CACHE, HERE, LOGS, new_folder
from jobs.setup.preflight import base_python

REQUIREMENT = HERE / "uv.txt"
UV_MINIMUM = (0, 8)
PIP_INSTALL = ("-m", "pip", "install", "--no-deps", "--only-binary", ":all:", "--require-hashes")
PYPI_ADVICE = (
    "if the lines above mention connections or host names: set-up needs the Python package index once; check the "
    "network, proxy or mirror settings. Then run set-up again: it resumes where it stopped"
)


def find_uv() -> Path:
    """Returns uv's path; fetches the pinned version with pip if there is none."""
    if is_uv_missing():
        fetch_uv(pinned_folder())
    return uv_on_path() or pinned_folder() / "bin" / "uv"


def is_uv_missing() -> bool:
    return uv_on_path() is None and not (pinned_folder() / "bin" / "uv").exists()


def uv_on_path() -> Path | None:
    """Returns the machine's own uv if it is recent enough, else None."""
    command = shutil.which("uv")
    return Path(command) if command and uv_version(command) >= UV_MINIMUM else None


def pinned_folder() -> Path:
    pinned = re.search(r"^uv==(\S+)", REQUIREMENT.read_text(encoding="utf-8"), re.MULTILINE).group(1)
    return CACHE / f"uv-{pinned}"


def uv_version(command: str) -> tuple[int, ...]:
    """Returns (major, minor) of a uv; (0,) if it does not report its version."""
    try:
        answer = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    found = re.match(r"uv (\d+)\.(\d+)", answer)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def fetch_uv(folder: Path) -> None:
    """Installs the pinned uv into `folder`, which appears only when it is complete."""
    python = base_python()
    with step("uv, the installer"), new_folder(CACHE) as temporary:
        run_logged(
            [python, *PIP_INSTALL, "--target", temporary / "uv", "-r", REQUIREMENT],
            LOGS / "uv.log",
            PYPI_ADVICE,
            env={**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"},
        )
        shutil.rmtree(folder, ignore_errors=True)
        (temporary / "uv").replace(folder)


def uv_environment() -> dict[str, str]:
    """Returns os.environ with a longer timeout for torch's wheels (up to 500 MB): uv's 30 s are short on slow lines."""
    return {"UV_HTTP_TIMEOUT": "300", **os.environ, "NO_COLOR": "1"}
