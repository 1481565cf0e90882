"""The files of one model, from the registry or from a package. Imports no large library."""

import os
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.settings import MODES
from conf.workspace import Workspace

CHALLENGER, CHAMPION = "challenger", "champion"
"""aliases in the registry"""
MAX_SHOWN = 20
"""versions in a message"""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model; all that opens a model starts from this."""

    name: str
    version: int
    folder: Path
    """holds int8/ and other modes, report.json and model_card.json"""
    package: str = ""
    """SHA-256 of a package's manifest, in hexadecimal; empty: the model is a version in the registry"""

    @property
    def title(self) -> str:
        """Name and version, and if it comes from a package, which one."""
        return f"{self.name} version {self.version}" + (f", package {self.package[:12]}" if self.package else "")

    def variant(self, mode: str) -> Path:
        """The folder of a mode. Raises InputError if this is a package that was made without the mode."""
        if self.package and not (self.folder / mode).is_dir():
            there = [known for known in MODES if (self.folder / known).is_dir()]
            raise InputError(
                f"{self.title} has no mode {mode}, it has {', '.join(there)}: choose one of these, or make the package "
                f"again with `python inference/package.py --modes '[{mode}]'`"
            )
        return self.folder / mode


def find_model(workspace: Workspace, name: str, which: str = CHAMPION, package: str = "") -> ModelFiles:
    """Finds a model in the workspace's registry, or checks a package, which needs no registry and no workspace.

    which: an alias or a version's number; package: a package's file or folder, checked and opened instead.
    Raises InputError if the registry has no such version, or if the package is not as its manifest says.
    """
    if not package:
        return _find_registered(workspace, name, which)
    from inference.model.package import open_package

    found = open_package(Path(package).expanduser())
    if which not in (CHAMPION, str(found.version)):
        raise InputError(
            f"version {which} was asked for, but --model {package} has only version {found.version}: leave out the "
            "version, or leave out --model to ask the registry"
        )
    return found


def _find_registered(workspace: Workspace, name: str, which: str) -> ModelFiles:
    # Imported here, because a package needs no MLflow, installed or not.
    from inference.model.registry import fetch_model, version_of, versions_of

    version = version_of(workspace, name, which)
    if version is not None:
        return ModelFiles(name, version, fetch_model(workspace, name, version))
    known = versions_of(workspace, name)
    step = "run `python inference/register.py`"
    if known:
        shown = [version for version in known if version.aliases or version in known[-MAX_SHOWN:]]
        names = [f"{one.version}" + (f" (@{', @'.join(one.aliases)})" if one.aliases else "") for one in shown]
        older = f", and {len(known) - len(shown)} older ones" if len(known) > len(shown) else ""
        promotion = "promote one with `python inference/promote.py`"
        advice = promotion if which == CHAMPION else "give a number, or an alias without @"
        step = f"known are {', '.join(names)}{older}: {advice}"
    raise InputError(f"no version or alias {which} of {name} in {workspace.store}: {step}")


def models_cache() -> Path:
    """Folder of this user that keeps models which were fetched or unpacked once. It may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chexscale" / "models"
