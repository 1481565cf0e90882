"""Installs Horovod's wheel: built once per machine for each set of versions and options, then kept in the cache."""

import hashlib
import os
import re
from pathlib import Path

from jobs.setup.commands import run_logged, step
from jobs.setup.environment import installed_packages, locked_packages
from jobs.setup.horovod_build import BUILD_FLAGS, REQUIREMENT, build, replacements
from jobs.setup.installer import find_uv, uv_environment
from jobs.setup.places import CACHE, LOCK, LOGS, PYTHON, PYTHON_VERSION, SITE_PACKAGES, read_state, write_state

WHEELS = CACHE / "horovod"
# Build options that are passed on to Horovod (see its docs/install.rst). Its HOROVOD_* run-time variables do not count.
OPTION = re.compile(r"HOROVOD_(GPU|GPU_\w+|NCCL_(HOME|INCLUDE|LIB|LINK)|(CUDA|ROCM|BUILD)_\w+|ALLOW_MIXED_GPU_IMPL)")


def is_installed() -> bool:
    library = SITE_PACKAGES / "horovod" / "torch"
    return (
        read_state().get("horovod") == wheel_name()
        and "horovod" in installed_packages(SITE_PACKAGES)
        and any(library.glob("mpi_lib_v2*.so"))
    )


def is_cached() -> bool:
    return wheel_folder().exists()


def install() -> None:
    """Installs the wheel from the cache; builds it first if it is not there."""
    options = build_options()
    if not is_cached():
        build(wheel_folder(), options)
    with step(f"Horovod's wheel ({wheel_name()})"):
        (wheel,) = wheel_folder().glob("*.whl")
        run_logged(
            [find_uv(), "pip", "install", "--offline", "--no-deps", "--reinstall", "-p", PYTHON, wheel],
            LOGS / "horovod-install.log",
            f"delete {wheel_folder()} and run set-up again, which rebuilds the wheel",
            env=uv_environment(),
        )
        write_state({**read_state(), "horovod": wheel_name(), "horovod_options": options})


def build_options() -> dict[str, str]:
    """Returns the options in the environment or, if there are none, those of the installed wheel.

    So `HOROVOD_GPU_OPERATIONS=NCCL make setup` is typed once, and `make demo` in another shell keeps that wheel.
    """
    asked = {name: value for name, value in sorted(os.environ.items()) if OPTION.fullmatch(name)}
    return asked or read_state().get("horovod_options", {})


def wheel_name() -> str:
    """Returns the cache key: versions of Horovod, torch and Python, a digest of options, flags and source changes."""
    horovod = locked_packages(REQUIREMENT.read_text(encoding="utf-8"))["horovod"]
    torch = locked_packages(LOCK.read_text(encoding="utf-8"))["torch"]
    options = build_options()
    recipe = repr((options, BUILD_FLAGS, replacements(options)))
    python = "cp" + PYTHON_VERSION.replace(".", "")
    return f"{horovod}-torch-{torch}-{python}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def wheel_folder() -> Path:
    return WHEELS / wheel_name()
