"""A model from the registry, ready to answer, as the command line and the batch open it."""

from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.workspace import Workspace
from inference.model.graphs import Predict
from inference.model.properties import Properties
from inference.model.registry import CHAMPION, fetch_model, version_of, versions_of
from inference.model.variants import open_variant

MAX_SHOWN = 20
"""versions in a message"""


@dataclass(frozen=True)
class ServedModel:
    """A registered model, ready to answer."""

    name: str
    version: int
    mode: str
    properties: Properties
    predict: Predict
    folder: Path
    """holds the other modes too, report.json and model_card.json"""


def open_served(
    workspace: Workspace, name: str, which: str = CHAMPION, mode: str = "int8", num_threads: int = 0
) -> ServedModel:
    """Opens a version from the registry. which: an alias or a version's number; num_threads: 0 means all cores.

    Raises InputError if the registry has no such version, or the version no such mode.
    """
    version = version_of(workspace, name, which)
    if version is None:
        raise InputError(
            f"no version or alias {which} of {name} in {workspace.store}: {_next_step(workspace, name, which)}"
        )
    folder = fetch_model(workspace, name, version)
    predict, properties = open_variant(mode, folder / mode, num_threads)
    return ServedModel(name, version, mode, properties, predict, folder)


def _next_step(workspace: Workspace, name: str, which: str) -> str:
    """What to do without this version: the versions that there are, those with an alias and the newest ones."""
    known = versions_of(workspace, name)
    if not known:
        return "run `python inference/register.py`"
    shown = [version for version in known if version.aliases or version in known[-MAX_SHOWN:]]
    names = [f"{one.version}" + (f" (@{', @'.join(one.aliases)})" if one.aliases else "") for one in shown]
    older = f", and {len(known) - len(shown)} older ones" if len(known) > len(shown) else ""
    advice = (
        "promote one with `python inference/promote.py`"
        if which == CHAMPION
        else "give a number, or an alias without @"
    )
    return f"known are {', '.join(names)}{older}: {advice}"
