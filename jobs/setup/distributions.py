"""Knows what each Linux distribution calls the packages that set-up needs.

Any Python 3.7 or later can read this file, because the preflight uses it on whatever Python was found.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

OS_RELEASE = Path("/etc/os-release")


class Distribution(NamedTuple):
    """One distribution: its install command and its names of packages, of which only those of Debian 12 were tried.

    python: the version to install, such as `3.12`; empty if the distribution has neither 3.11 nor 3.12.
    java: the package of a Java that Spark 4.0 supports. names: kind of package -> name; {v} is the version of Python.
    """

    install: str
    python: str
    java: str
    names: dict


DEBIAN = {
    "python": "python{v}",
    "headers": "python{v}-dev",
    "pip": "python3-pip",
    "g++": "g++",
    "make": "make",
    "cmake": "cmake",
}
RED_HAT = {
    "python": "python{v}",
    "headers": "python{v}-devel",
    "pip": "python{v}-pip",
    "g++": "gcc-c++",
    "make": "make",
    "cmake": "cmake",
}
# Its only Python is 3.12, and its packages have the names without a version.
RED_HAT_10 = {**RED_HAT, "python": "python3", "headers": "python3-devel", "pip": "python3-pip"}
APT, DNF = "apt-get update && apt-get install -y", "dnf install -y"
DEBIAN_12 = Distribution(APT, "3.11", "openjdk-17-jre-headless", DEBIAN)
# (ID, major version) of /etc/os-release. Ubuntu's releases before 24.04 have no final release of Python 3.11.
KNOWN = {
    ("debian", "12"): DEBIAN_12,
    ("debian", "13"): Distribution(APT, "", "openjdk-21-jre-headless", DEBIAN),
    ("ubuntu", "22"): Distribution(APT, "", "openjdk-17-jre-headless", DEBIAN),
    ("ubuntu", "24"): Distribution(APT, "3.12", "openjdk-17-jre-headless", DEBIAN),
    ("rhel", "9"): Distribution(DNF, "3.11", "java-17-openjdk-headless", RED_HAT),
    ("rhel", "10"): Distribution(DNF, "3.12", "java-21-openjdk-headless", RED_HAT_10),
}


def this_distribution() -> Distribution | None:
    """Returns the distribution of this machine; one that is built from RHEL counts as RHEL; None if it is unknown."""
    try:
        lines = OS_RELEASE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    release = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    major = release.get("VERSION_ID", "").split(".")[0]
    for name in [release.get("ID", ""), *release.get("ID_LIKE", "").split()]:
        if (name, major) in KNOWN:
            return KNOWN[name, major]
    return None


def install_line(distribution: Distribution, kinds: list, python: str, as_root: bool) -> str:
    """Returns the command that installs the packages of these kinds; empty if the distribution has none of them.

    kinds: keys of Distribution.names, or `java`. python: the version that set-up will use, such as `3.12`; empty if
    the machine has none that fits, which makes it the distribution's own.
    """
    version = python or distribution.python
    names = {**distribution.names, "java": distribution.java}
    words = [names[kind] for kind in kinds if version or "{v}" not in names[kind]]
    packages = " ".join(dict.fromkeys(word.format(v=version) for word in words))
    command = distribution.install if as_root else distribution.install.replace("apt-get", "sudo apt-get")
    command = command if as_root else command.replace("dnf", "sudo dnf")
    return f"{command} {packages}" if packages else ""
