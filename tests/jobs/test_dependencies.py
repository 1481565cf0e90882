"""Checks of the dependencies that need no network; `make audit` checks for known vulnerabilities."""

import re
import sysconfig
from importlib.metadata import distributions, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from jobs.setup.environment import locked_packages
from jobs.setup.preflight import PYTHONS

PROJECT = Path(__file__).parents[2]
LOCK = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
EXTRAS = ("", "etl", "training", "inference", "serving", "dev")
COPYLEFT = re.compile(r"\b[AL]?GPL|General Public License", re.IGNORECASE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_locked_package_has_one_version_and_hashes():
    packages = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(packages) > 100
    assert [lines for lines in packages if not re.match(r"[\w.-]+==\S+.*\\\n +--hash=sha256:", lines)] == []


def test_every_direct_dependency_is_locked():
    locked = {normal(name) for name in re.findall(r"^([\w.-]+)==", LOCK, re.MULTILINE)}
    needs = [need for need in requires("chexscale") if not re.search("extra == .(azure|gcs)", need)]
    assert {normal(Requirement(need).name) for need in needs} - locked == set()


def test_set_up_and_pip_take_the_same_versions_of_python():
    (said,) = re.findall(r'python_requires="(.*)"', (PROJECT / "setup.py").read_text(encoding="utf-8"))
    taken = [(3, minor) for minor in range(30) if SpecifierSet(said).contains(f"3.{minor}.1")]
    assert taken == list(PYTHONS)


@pytest.mark.parametrize("python", [f"{major}.{minor}" for major, minor in PYTHONS])
def test_the_lock_is_complete_and_right_for_each_python(python):
    packages = {normal(package.name): package for package in distributions(path=[sysconfig.get_path("purelib")])}
    machine = {**default_environment(), "python_version": python, "python_full_version": f"{python}.1"}
    needed, misfits, pending = set(), [], [("chexscale", extra) for extra in EXTRAS]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in needed:
            continue
        needed.add((name, extra))
        if name not in packages:
            misfits.append((name, "absent"))
            continue
        package = packages[name]
        supported = package.metadata.get("Requires-Python") or ""
        if name != "chexscale" and not SpecifierSet(supported).contains(f"{python}.1"):
            misfits.append((name, supported))
        for need in map(Requirement, package.requires or []):
            if need.marker and not need.marker.evaluate({**machine, "extra": extra}):
                continue
            pending += [(normal(need.name), part) for part in ("", *need.extras)]
            found = packages.get(normal(need.name))
            if found and not need.specifier.contains(found.version, prereleases=True):
                misfits.append((name, str(need)))
    assert misfits == []
    assert {name for name, _ in needed} - {"chexscale"} == locked_packages(LOCK).keys()


def test_no_package_is_under_a_copyleft_licence():
    told = {
        package.name: " ".join(
            [
                package.metadata.get("License-Expression") or "",
                (package.metadata.get("License") or "").partition("\n")[0],
                *package.metadata.get_all("Classifier", []),
            ]
        )
        for package in distributions(path=[sysconfig.get_path("purelib")])
    }
    assert "torch" in told
    assert {name: words for name, words in told.items() if COPYLEFT.search(words)} == {}
