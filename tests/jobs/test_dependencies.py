"""Checks of the dependencies that need no network; `make audit` checks for known vulnerabilities."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, distributions, requires
from pathlib import Path

import pytest
import setuptools
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from jobs.setup.environment import locked_packages
from jobs.setup.preflight import PYTHONS

PROJECT = Path(__file__).parents[2]
LOCK = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
EXTRAS = ("", "etl", "training", "inference", "serving", "server", "dev")
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


def packages() -> dict[str, Distribution]:
    return {normal(package.name): package for package in distributions(path=[sysconfig.get_path("purelib")])}


def needed_by(extras: tuple[str, ...], python: str) -> tuple[set[str], list[tuple[str, str]]]:
    """Names of all packages that these extras of the project bring on a version of Python, and what does not fit."""
    installed = packages()
    machine = {**default_environment(), "python_version": python, "python_full_version": f"{python}.1"}
    needed, misfits, pending = set(), [], [("chexscale", extra) for extra in ("", *extras)]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in needed:
            continue
        needed.add((name, extra))
        if name not in installed:
            misfits.append((name, "absent"))
            continue
        supported = installed[name].metadata.get("Requires-Python") or ""
        if name != "chexscale" and not SpecifierSet(supported).contains(f"{python}.1"):
            misfits.append((name, supported))
        for need in map(Requirement, requirements(name, installed)):
            if need.marker and not need.marker.evaluate({**machine, "extra": extra}):
                continue
            pending += [(normal(need.name), part) for part in ("", *need.extras)]
            found = installed.get(normal(need.name))
            if found and not need.specifier.contains(found.version, prereleases=True):
                misfits.append((name, str(need)))
    return {name for name, _ in needed} - {"chexscale"}, misfits


def requirements(name: str, installed: dict[str, Distribution]) -> list[str]:
    """What a package says that it needs; the project itself by the present setup.py, not by that of its last set-up."""
    if name != "chexscale":
        return installed[name].requires or []
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **words: given.update(words))
        runpy.run_path(str(PROJECT / "setup.py"))
    extras = given["extras_require"].items()
    return [*given["install_requires"], *(f'{need}; extra == "{extra}"' for extra, needs in extras for need in needs)]


@pytest.mark.parametrize("python", [f"{major}.{minor}" for major, minor in PYTHONS])
def test_the_lock_is_complete_and_right_for_each_python(python):
    needed, misfits = needed_by(EXTRAS, python)
    assert misfits == []
    assert needed == locked_packages(LOCK).keys()


@pytest.mark.parametrize(
    ("extras", "modules"),
    [
        (["etl"], ["etl.writing.run"]),
        (["training"], ["training.start.run", "training.ensembles.run", "training.suspects.run"]),
        (["training", "inference"], ["inference.candidate.run"]),
        (["serving"], ["inference.files.run", "inference.service.app", "inference.service.server"]),
        (["etl", "serving"], ["inference.batch.run", "inference.batch.listing", "etl.cluster.workers"]),
    ],
    ids=str,
)
def test_extras_bring_all_that_their_commands_import(extras, modules, tmp_path):
    """The pairs are the table of docs/environment.md."""
    needed, _ = needed_by(tuple(extras), "{}.{}".format(*sys.version_info))
    site_packages = Path(sysconfig.get_path("purelib"))
    for name, package in packages().items():
        tops = {file.parts[0] for file in package.files or []} - {"..", "__pycache__"} if name in needed else set()
        for top in tops:
            # cv2 looks at the path of its own files, which must not lead away.
            if top == "cv2":
                shutil.copytree(site_packages / top, tmp_path / top, copy_function=link)
            elif not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(site_packages / top)
    # With -S this environment's own packages are not on the path. setuptools' .pth file gives Python 3.12 a distutils.
    code = [f"import site; site.addsitedir({str(tmp_path)!r})", *(f"import {module}" for module in modules)]
    given = [sys.executable, "-S", "-c", "; ".join(code)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    imported = subprocess.run(given, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert imported.returncode == 0, imported.stderr


def link(source: str, target: str) -> None:
    """Gives a file a second name, or copies it to another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


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
