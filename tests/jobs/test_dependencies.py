"""Checks of the dependencies that need no network; `make audit` checks for known vulnerabilities."""

import re
import sysconfig
from importlib.metadata import distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

LOCK = (Path(__file__).parents[2] / "requirements.lock").read_text(encoding="utf-8")
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
