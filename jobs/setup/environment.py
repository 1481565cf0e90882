"""Installs the virtual environment: every locked package, checked by its hash, and the project itself."""

import hashlib
import re
import shutil
from pathlib import Path

from jobs.setup.commands import SetupError, run_logged, step
from jobs.setup.installer import PYPI_ADVICE, find_uv, uv_environment
from jobs.setup.places import (
    LOCK,
    LOGS,
    PYTHON,
    PYTHON_VERSION,
    ROOT,
    SITE_PACKAGES,
    STATE,
    VENV,
    read_state,
    write_state,
)
from jobs.setup.preflight import base_python

# The mode `compat` puts the project's folder on the path, so that a package added later needs no new set-up.
EDITABLE_INSTALL = (
    *("pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--reinstall"),
    *("--config-settings", "editable_mode=compat"),
)


def are_packages_installed() -> bool:
    """True if set-up finished this lock in this folder, Python is there, and every package still has its version."""
    if read_state().get("packages") != lock_key() or not PYTHON.exists():
        return False
    return locked_packages(LOCK.read_text(encoding="utf-8")).items() <= installed_packages(SITE_PACKAGES).items()


def install_packages() -> None:
    """Updates the environment to the lock; rebuilds it if it is unfinished, or its Python gone or of another version.

    uv removes what the lock does not name, Horovod and the project too, so the later steps have to run again.
    """
    uv, log = find_uv(), LOGS / "packages.log"
    with step(f"packages of {LOCK.name} into {VENV.name}, Python {PYTHON_VERSION} ({base_python()})"):
        finished = "packages" in read_state() and PYTHON.exists() and SITE_PACKAGES.exists()
        STATE.unlink(missing_ok=True)
        if not finished:
            if VENV.exists():
                why = f"was left unfinished, was made by hand, or is not of Python {PYTHON_VERSION}"
                print(f"        {VENV} {why}: rebuilding it", flush=True)
                shutil.rmtree(VENV)
            run_logged([uv, "venv", "-p", base_python(), VENV], log, "read the lines above", env=uv_environment())
        sync_with_lock(uv, log)
        write_state({"packages": lock_key()})


def sync_with_lock(uv: Path, log: Path) -> None:
    """Installs what the lock names and removes the rest; tries uv's cache first, so that a repair needs no network.

    All packages are compiled here once, because the imports of a training then take a third of the time. If Python may
    not write bytecode (PYTHONDONTWRITEBYTECODE, as in many containers, or another user's folder), they would otherwise
    never be compiled.
    """
    sync = [uv, "pip", "sync", "--compile-bytecode", "--require-hashes", "-p", PYTHON, LOCK]
    try:
        run_logged([*sync, "--offline"], log, "", env=uv_environment())
    except SetupError:
        run_logged(
            sync,
            log,
            PYPI_ADVICE,
            status_of=lambda line: line.strip() if "ownload" in line else None,
            env=uv_environment(),
        )


def lock_key() -> str:
    """Returns a key that changes with the lock and with the folder: a moved environment has dead paths in it."""
    return hashlib.sha256(LOCK.read_bytes() + str(ROOT).encode()).hexdigest()


def locked_packages(lock_text: str) -> dict[str, str]:
    """Returns name (lower case with hyphens, PEP 503) -> version of every package in a lock."""
    found = re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock_text, re.MULTILINE)
    return {normal_name(name): version for name, version in found}


def installed_packages(site_packages: Path) -> dict[str, str]:
    """Returns the same for the packages in a site-packages folder, from the names of its dist-info folders."""
    found = [folder.name.removesuffix(".dist-info").split("-", 1) for folder in site_packages.glob("*.dist-info")]
    return {normal_name(name): version for name, version in found}


def normal_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def is_project_installed() -> bool:
    return read_state().get("project") == project_key() and "chexscale" in installed_packages(SITE_PACKAGES)


def install_project() -> None:
    """Installs the project in editable mode, so that `import etl` works from any folder and in Spark's workers."""
    with step("the project itself"):
        run_logged(
            [find_uv(), *EDITABLE_INSTALL, "-p", PYTHON, "-e", ROOT],
            LOGS / "project.log",
            "fix setup.py or pyproject.toml as the lines above say",
            env=uv_environment(),
        )
        write_state({**read_state(), "project": project_key()})


def project_key() -> str:
    return hashlib.sha256((ROOT / "setup.py").read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
