"""A model from the registry, ready to answer, as the command line and the batch open it."""

from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError
from conf.workspace import Workspace
from inference.model.graphs import Predict
from inference.model.properties import Properties
from inference.model.registry import CHAMPION, fetch_model, version_of
from inference.model.variants import open_variant


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
            f"no version or alias {which} of {name} in {workspace.store}: run "
            "`python inference/register.py`, or promote a version with `python inference/promote.py`"
        )
    folder = fetch_model(workspace, name, version)
    predict, properties = open_variant(mode, folder / mode, num_threads)
    return ServedModel(name, version, mode, properties, predict, folder)
