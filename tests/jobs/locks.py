"""What the locks of containers and of Databricks have, and what setup.py asks for."""

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def blocks(lock: str) -> set[str]:
    """Each package of a lock, with its version and hashes. lock: the file, from the top of the checkout."""
    return set(re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf-8").strip()))


def names(lock: str) -> set[str]:
    return {block.partition("==")[0] for block in blocks(lock)}


def asked(extras: list[str]) -> set[str]:
    """The direct dependencies of the package with these extras."""
    needs = map(Requirement, requires("chexscale"))
    return {
        need.name.lower()
        for need in needs
        if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in extras)
    }
