"""Reports at once everything on this machine that is missing or wrong, and how to fix it.

Runs before anything is written, on whatever Python was found, so this file needs no more than Python 3.7.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from jobs.setup.distributions import DEBIAN_12, install_line, this_distribution

PYTHONS = ((3, 11), (3, 12))  # setup.py says the same; every locked package has files for both
JAVA_RELEASES = (17, 21)  # Spark 4.0's own list, https://spark.apache.org/docs/4.0.0/
CMAKE_MINIMUM = (3, 13)  # below it, Horovod's setup.py downloads a CMake of its own
DISK_NEEDED_GB = 12  # .venv and uv's cache share their 7 GB by hard links; the rest is room for downloads


class Missing(NamedTuple):
    """One thing to fix: what was found and expected, the kinds of packages that fix it, and further advice."""

    what: str
    packages: tuple[str, ...] = ()
    advice: str = ""


def find_problems(
    folder: Path, fetching: bool, installing: bool, building: bool, managed: bool = False
) -> list[Missing]:
    """Returns all problems of this machine in the order in which to fix them; empty means ready.

    folder: where the environment goes. fetching: uv has yet to be fetched (pip is needed).
    installing: the packages have yet to be installed (disk is needed).
    building: Horovod's wheel has yet to be built (compiler, make, CMake and Python's headers are needed).
    managed: uv will supply Python and its headers.
    """
    checks = [check_machine(), None if managed else check_python(), check_java()]
    if fetching:
        checks.append(check_pip())
    if building:
        checks += [check_compiler(), check_make(), check_cmake(), None if managed else check_headers()]
    if installing:
        checks.append(check_disk(folder))
    return [problem for problem in checks if problem]


def report(problems: list[Missing]) -> str:
    """Returns the text that is shown: every problem, then one command that installs the packages for all of them."""
    lines = [f"this machine is not ready, and nothing was changed; {len(problems)} to fix:", ""]
    for number, problem in enumerate(problems, 1):
        lines.append(f"  {number}. {problem.what}")
        lines += [f"     {line}" for line in problem.advice.splitlines()]
    kinds = [kind for problem in problems for kind in problem.packages]
    distribution = this_distribution()
    command = install_line(distribution or DEBIAN_12, kinds, fitting_version(), os.geteuid() == 0)
    if command:
        known = "" if distribution else "this distribution is unknown to set-up; on Debian 12 the command would be "
        lines += ["", f"  {known}{command}"]
    return "\n".join([*lines, "", "  Then run the same command again."])


def check_machine() -> Missing | None:
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        return Missing(f"machine: {system} on {machine}; the locked packages are for Linux on x86_64")
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names or not libc_is_gnu():
        return Missing("machine: no GNU C library (Alpine?); the locked packages are built against it")
    return None


def libc_is_gnu() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False


def check_python() -> Missing | None:
    if sys.version_info[:2] in PYTHONS:
        return None
    found = f"{platform.python_version()} at {sys.executable}"
    return Missing(
        f"Python: {found}; needs 3.11 or 3.12, for which the packages are locked",
        ("python", "headers"),
        "or install uv (https://docs.astral.sh/uv): set-up then has uv supply a Python",
    )


def fitting_version() -> str:
    """Returns the version of this Python, such as `3.12`, if set-up can use it; otherwise an empty text."""
    return "" if check_python() else "{}.{}".format(*sys.version_info)


def check_pip() -> Missing | None:
    python = base_python()
    if output_of([python, "-m", "pip", "--version"]).startswith("pip "):
        return None
    return Missing(f"pip: {python} has none; set-up needs it to fetch uv, the installer", ("pip",))


def base_python() -> str:
    """Returns the interpreter that the environment is made from, even if this one is the environment's own."""
    return getattr(sys, "_base_executable", None) or sys.executable


def java_command() -> str | None:
    """Returns the java that Spark will start: JAVA_HOME's, else the one on PATH; None if there is none."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")


def check_java() -> Missing | None:
    packages, needed = ("java",), "Spark 4.0 needs Java 17 or 21"
    java = java_command()
    if java is None:
        where = f"JAVA_HOME={os.environ['JAVA_HOME']}" if os.environ.get("JAVA_HOME") else "PATH"
        return Missing(f"Java: none in {where}; {needed}", packages)
    answer = output_of([java, "-version"])
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    if not found or int(found.group(1)) not in JAVA_RELEASES:
        seen = found.group(1) if found else f"no version in {answer.strip()[:80]!r}"
        return Missing(
            f"Java: {seen} at {java}; {needed}",
            packages,
            "then, if the other one stays the default: export JAVA_HOME=/usr/lib/jvm/NAME with its folder's name there",
        )
    if "version" not in output_of([java, "--add-modules", "jdk.incubator.vector", "-version"]):
        return Missing(f"Java: {java} has no module jdk.incubator.vector, which Spark 4.0 needs", packages)
    return None


def check_compiler() -> Missing | None:
    return None if shutil.which("g++") else Missing("g++: not on PATH; it compiles Horovod", ("g++",))


def check_make() -> Missing | None:
    return None if shutil.which("make") else Missing("make: not on PATH; it builds Horovod", ("make",))


def check_cmake() -> Missing | None:
    cmake = shutil.which(os.environ.get("HOROVOD_CMAKE", "cmake"))
    if cmake is None:
        return Missing("CMake: not on PATH; Horovod needs CMake 3", ("cmake",))
    found = re.search(r"version (\d+)\.(\d+)", output_of([cmake, "--version"]))
    version = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    if CMAKE_MINIMUM <= version < (4, 0):
        return None
    return Missing(
        f"CMake: {version[0]}.{version[1]} at {cmake}; Horovod needs 3.13 or later, but not 4",
        ("cmake",),
        "then, if the other one comes first on PATH: export HOROVOD_CMAKE=/usr/bin/cmake\n"
        "if the distribution has only CMake 4: python3 -m pip install 'cmake<4'",
    )


def check_headers() -> Missing | None:
    header = Path(sysconfig.get_path("include"), "Python.h")
    if header.exists():
        return None
    return Missing(f"Python's headers: no {header}; Horovod compiles against them", ("headers",))


def check_disk(folder: Path) -> Missing | None:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb >= DISK_NEEDED_GB:
        return None
    return Missing(
        f"disk: {free_gb:.1f} GB free in {folder}; the environment needs {DISK_NEEDED_GB} GB",
        advice="free some space there, or put the project on another disk",
    )


def output_of(command: list[str]) -> str:
    """Returns the standard output and error of a short command, even if it fails; empty if it cannot start or hangs."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
