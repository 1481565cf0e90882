"""The programs and packages of this Python's environment."""

import ctypes
import os
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""
SPARK_DEFAULTS = Path(__file__).parent / "spark"


def own_environment() -> dict[str, str]:
    """The variables for a program of this environment: found first, with this Python for Spark's workers.

    A Spark that pip installed and nobody has configured reads SPARK_DEFAULTS; it would log each of its steps.
    """
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH") or os.defpath])
    # Spark would take the first python3 on the PATH, which may lack these packages.
    environment.setdefault("PYSPARK_PYTHON", sys.executable)
    if _is_spark_without_settings():
        environment["SPARK_CONF_DIR"] = str(SPARK_DEFAULTS)
    return environment


def versions_of(*packages: str) -> dict[str, str]:
    """Python's version, and that of each of these packages that is installed."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def exit_code_of(returncode: int) -> int:
    """The exit code of a program that was run, as shells give it: if a signal ended it, 128 plus the signal.

    returncode: as subprocess gives it, which is minus the signal if one ended the program.
    """
    return returncode if returncode >= 0 else 128 - returncode


def run_and_stop(command: list[str]) -> int:
    """Runs a program of this environment and returns its exit code, as exit_code_of gives it.

    If this process gets SIGTERM or Ctrl-C meanwhile, the program and all that it has started get SIGTERM, and this
    process ends.
    """

    asked, process = [], None

    def stop(number: int, _: FrameType | None) -> None:
        asked.append(number)
        # While the program is being started, there is nobody to stop yet who is known here.
        if process:
            sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        # With a group of its own, because spark-submit starts further processes.
        with subprocess.Popen(command, env=own_environment(), start_new_session=True) as started:
            try:
                process = started
                if asked:
                    sys.exit(128 + asked[0])
                return exit_code_of(process.wait())
            except BaseException:
                os.killpg(started.pid, signal.SIGTERM)
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """Has this process receive SIGTERM, on which a rank saves its state, when the thread that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _is_spark_without_settings() -> bool:
    package = find_spec("pyspark")
    configured = {"SPARK_HOME", "SPARK_CONF_DIR"} & os.environ.keys()
    return package is not None and not configured and not Path(package.origin).with_name("conf").exists()
