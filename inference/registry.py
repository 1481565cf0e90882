"""Models in the MLflow registry, their aliases and their history: the one owner of mlflow in this package. No torch.

`challenger` is the last version registered, `champion` the one that is served. Every move of the champion is written
down in the registered model's tag `champion_history`, the newest last.
"""

import getpass
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

# First: it silences what mlflow would log on import.
from training.store import use_store  # isort: skip

import mlflow
from mlflow.exceptions import MlflowException

from conf.errors import InputError
from conf.workspace import Workspace, atomic_folder

CHALLENGER, CHAMPION = "challenger", "champion"
HISTORY = "champion_history"


@dataclass(frozen=True)
class Registered:
    """A version in the registry."""

    model: str
    version: int
    aliases: list[str]


@dataclass(frozen=True)
class Move:
    """A move of the alias `champion`."""

    version: int
    replaced: int | None
    """the champion before; None where there was none"""
    at: str
    """UTC, ISO 8601"""
    by: str
    """the user who ran the command"""
    why: str
    is_rollback: bool = False


def champion_version(workspace: Workspace, name: str) -> int | None:
    """The version that `champion` points at; None where there is none."""
    return version_of(workspace, name, CHAMPION)


def version_of(workspace: Workspace, name: str, which: str) -> int | None:
    """The number of a version: of an alias, or of its own number, as text; None where the registry has no such one."""
    if not workspace.tracking_server and not workspace.tracking_db.exists():
        # MLflow would make one, which takes seconds, in a workspace that may have been mistyped.
        return None
    use_store(workspace)
    client = mlflow.MlflowClient()
    try:
        find = client.get_model_version if which.isdigit() else client.get_model_version_by_alias
        return int(find(name, which).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def history(workspace: Workspace, name: str) -> list[Move]:
    """Every move of the champion, the newest last. Raises InputError where there is no such registered model."""
    use_store(workspace)
    try:
        tags = mlflow.MlflowClient().get_registered_model(name).tags
    except MlflowException as error:
        raise InputError(f"no registered model {name}: run `python inference/register.py` first") from error
    return [Move(**move) for move in json.loads(tags.get(HISTORY, "[]"))]


def promote(workspace: Workspace, name: str, number: int, why: str, is_rollback: bool = False) -> Move:
    """Makes this version the champion and writes down who did it and why.

    Raises InputError for a version that the registry does not have, or that is the champion already.
    """
    moves = history(workspace, name)
    if version_of(workspace, name, str(number)) is None:
        raise InputError(f"{name} has no version {number}: look at its versions in MLflow's pages (`make ui`)")
    replaced = champion_version(workspace, name)
    if replaced == number:
        raise InputError(f"{name} version {number} is the champion already")
    move = Move(number, replaced, datetime.now(UTC).isoformat(timespec="seconds"), getpass.getuser(), why, is_rollback)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(name, CHAMPION, str(number))
    client.set_registered_model_tag(name, HISTORY, json.dumps([asdict(one) for one in [*moves, move]]))
    return move


def rollback(workspace: Workspace, name: str, why: str) -> Move:
    """Makes the champion before the present one champion again; once more, the one before that.

    Raises InputError where there was none.
    """
    present = champion_version(workspace, name)
    before = before_present(history(workspace, name), present)
    if before is None:
        raise InputError(
            f"{name} has no champion before version {present}: promote one with `python inference/promote.py "
            "--inference.version N`"
        )
    return promote(workspace, name, before, f"rollback from version {present}: {why}", is_rollback=True)


def before_present(moves: list[Move], present: int | None) -> int | None:
    """The champion that a rollback goes back to: what a rollback has left is not come back to. None where none is."""
    line: list[int] = []
    for move in moves:
        line = line[:-1] if move.is_rollback else [*line, move.version]
    # An alias that was moved in MLflow's pages has left no word.
    line = [*line, present] if line[-1:] != [present] else line
    return line[-2] if len(line) > 1 else None


def fetch_model(workspace: Workspace, name: str, number: int) -> Path:
    """The folder of a registered version, with fp32/, fp16/, int8/, onnx/, report.json and model_card.json.

    One that a server keeps is copied into ~/.cache/chexscale once.
    """
    use_store(workspace)
    uri = f"models:/{name}/{number}"
    # As pyfunc lays out its artifacts: the name of the folder that was registered.
    inside = Path("artifacts") / workspace.model.name
    if not workspace.tracking_server:
        return Path(mlflow.artifacts.download_artifacts(uri)) / inside
    found = mlflow.MlflowClient().get_model_version(name, str(number))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "chexscale" / "models"
    folder = cache / f"{name}-{number}-{found.run_id}-{found.creation_timestamp}"
    if not folder.exists():
        with atomic_folder(folder) as building:
            mlflow.artifacts.download_artifacts(uri, dst_path=str(building))
    return folder / inside


def trained_versions(workspace: Workspace, delta_table_id: str) -> set[int]:
    """Versions of this Delta table that any registered model was trained on."""
    use_store(workspace)
    found = mlflow.search_model_versions(filter_string=f"tags.delta_table_id = '{delta_table_id}'")
    return {int(version.tags["delta_version"]) for version in found}
