"""Models in the MLflow registry, their aliases and their history. The one owner of mlflow in this package; no torch.

`challenger` is the version registered last, `champion` the one that is served. Each move of the champion is recorded in
a tag of the registered model, named `champion_history_` plus the time and a random ending. Because each move has its
own tag, two moves at the same time are both recorded. Names and lengths are those that Unity Catalog allows.
"""

import getpass
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

# Imported first, because it silences what mlflow would log on import.
from training.record.store import use_store  # isort: skip

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from conf.disks import is_of_disk, named_if_full
from conf.errors import InputError
from conf.workspace import Workspace
from conf.writing import atomic_folder, locked
from inference.model.model_files import CHALLENGER, CHAMPION, models_cache
from training.record.addresses import path_of

# The character after it was a dot in older releases, and the time had punctuation.
HISTORY = "champion_history"
TESTED_AT = "tested_at_"
"""beginning of a version's tags that hold the summary of an external test each, see inference/external/record.py"""
STAMP, STAMP_DIGITS = "%Y%m%d%H%M%S%f", 20
MAX_TAG = 1000
"""characters that a tag of Unity Catalog holds; longer reasons are cut"""


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
    """the champion before; None if there was none"""
    at: str
    """UTC, ISO 8601"""
    by: str
    """the user who ran the command"""
    why: str
    is_rollback: bool = False


def champion_version(workspace: Workspace, name: str) -> int | None:
    """Returns the version that `champion` points to; None if there is none."""
    return version_of(workspace, name, CHAMPION)


def version_of(workspace: Workspace, name: str, which: str) -> int | None:
    """Returns a version's number. which: an alias, or the number as text; None if the registry has no such version."""
    if not workspace.has_store:
        return None
    use_store(workspace)
    with _as_input_error(workspace):
        client = mlflow.MlflowClient()
        find = client.get_model_version if which.isdigit() else client.get_model_version_by_alias
        try:
            return int(find(name, which).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def versions_of(workspace: Workspace, name: str) -> list[Registered]:
    """Returns the versions of a registered model, the oldest first; empty if there is no such model."""
    if not workspace.has_store:
        return []
    use_store(workspace)
    with _as_input_error(workspace):
        client = mlflow.MlflowClient()
        found = client.search_model_versions(f"name={name!r}")
        aliases = client.get_registered_model(name).aliases if found else {}
    numbers = sorted(int(version.version) for version in found)
    return [
        Registered(name, number, [alias for alias in aliases if int(aliases[alias]) == number]) for number in numbers
    ]


@contextmanager
def _as_input_error(workspace: Workspace) -> Iterator[None]:
    """Turns errors of mlflow, its database and its files into an InputError, but for those of a full or lost disk."""
    try:
        with named_if_full(workspace.store):
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if is_of_disk(error):
            raise
        reason, *_ = str(error).splitlines()
        raise InputError(
            f"the registry at {workspace.store} cannot be read ({reason}): look at it in MLflow's UI, or restore "
            "it from a backup"
        ) from error


def history(workspace: Workspace, name: str) -> list[Move]:
    """Returns every move of the champion, newest last. Raises InputError if there is no such registered model."""
    tags = _history_tags(workspace, name)
    return [Move(**json.loads(tags[key])) for key in sorted(tags, key=_stamp)]


def _history_tags(workspace: Workspace, name: str) -> dict[str, str]:
    """The tags that record the moves of the champion; raises InputError if there is no such registered model."""
    absent = InputError(f"no registered model {name}: run `python inference/register.py` first")
    if not workspace.has_store:
        raise absent
    use_store(workspace)
    with _as_input_error(workspace):
        try:
            tags = mlflow.MlflowClient().get_registered_model(name).tags
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise absent from error
            raise
    return {key: value for key, value in tags.items() if key.startswith(HISTORY)}


def _stamp(tag: str) -> str:
    """The time in a tag's name, as STAMP writes it."""
    return re.sub(r"\D", "", tag)[:STAMP_DIGITS]


def _after(tags: dict[str, str], now: datetime) -> datetime:
    """This time, or just after the last recorded move, which a host with a clock that is ahead may have made."""
    last = max(map(_stamp, tags), default="")
    return max(now, datetime.strptime(last, STAMP).replace(tzinfo=UTC) + timedelta(microseconds=1)) if last else now


def promote(
    workspace: Workspace, name: str, number: int, why: str, is_rollback: bool = False, compared: int | None = None
) -> Move:
    """Makes this version the champion and records who did it and why.

    compared: the champion that this version was found not to be worse than; 0 if there was none; None if it was not
    compared.
    Raises InputError if the registry has no such version, if it is already the champion, if the champion is not the one
    it was compared with, or if the reason is empty.
    """
    _check_reason(why)
    tags = _history_tags(workspace, name)
    if version_of(workspace, name, str(number)) is None:
        raise InputError(f"{name} has no version {number}: look at its versions in MLflow's UI (`make ui`)")
    replaced = champion_version(workspace, name)
    if replaced == number:
        raise InputError(f"{name} version {number} is already the champion")
    if compared is not None and (replaced or 0) != compared:
        now = f"the champion of {name} is now version {replaced}" if replaced else f"{name} has no champion any more"
        then = f"version {number} was compared with version {compared}"
        then = then if compared else f"there was none when version {number} was measured"
        raise InputError(
            f"{now}, but {then}: it stays registered as @{CHALLENGER}; run this again, or promote it by hand with "
            "`python inference/promote.py`"
        )
    now = _after(tags, datetime.now(UTC))
    move = Move(number, replaced, now.isoformat(timespec="seconds"), getpass.getuser(), why, is_rollback)
    while len(text := json.dumps(asdict(move), ensure_ascii=False)) > MAX_TAG and move.why:
        # Each character of the reason takes up to six of the text.
        move = replace(move, why=move.why[: len(move.why) - max(1, (len(text) - MAX_TAG) // 6)])
    client = mlflow.MlflowClient()
    with _as_input_error(workspace):
        # Record first: a recorded move that never happened can be detected, an unrecorded one cannot.
        # Two hosts whose clocks are behind the last move would choose the same time.
        tag = f"{HISTORY}_{now:{STAMP}}_{uuid.uuid4().hex[:8]}"
        client.set_registered_model_tag(name, tag, text)
        client.set_registered_model_alias(name, CHAMPION, str(number))
    return move


def _check_reason(why: str) -> None:
    if not why.strip():
        raise InputError("--why is empty, expected the reason, which the registry keeps: give one, or leave --why out")


def rollback(workspace: Workspace, name: str, why: str) -> Move:
    """Makes the previous champion the champion again; a second call goes back one more.

    Raises InputError if there was no champion before, or if the reason is empty.
    """
    _check_reason(why)
    present = champion_version(workspace, name)
    before = before_present(history(workspace, name), present)
    if before is None:
        none = f"no champion before version {present}" if present else "no champion and had none before"
        raise InputError(f"{name} has {none}: promote one with `python inference/promote.py N`")
    left = f"version {present}" if present else "no champion"
    return promote(workspace, name, before, f"rollback from {left}: {why}", is_rollback=True)


def before_present(moves: list[Move], present: int | None) -> int | None:
    """Returns the version that a rollback would restore; None if there is none.

    It is the previous champion, leaving out versions that were rolled back.
    """
    if moves and present == moves[-1].replaced:
        # The process was killed between the record and the move.
        moves = moves[:-1]
    line: list[int] = []
    for move in moves:
        line = _ending_in(line, move.replaced)
        line = line[:-1] if move.is_rollback else [*line, move.version]
    line = _ending_in(line, present)
    return line[-2] if len(line) > 1 else None


def _ending_in(line: list[int], present: int | None) -> list[int]:
    # Moving the alias in MLflow's UI leaves no record.
    return line if present is None or line[-1:] == [present] else [*line, present]


def fetch_model(workspace: Workspace, name: str, number: int) -> Path:
    """Returns the folder of a registered version, with fp32/, fp16/, int8/, onnx/, report.json and model_card.json.

    If a tracking server or a store has the version, it is copied into ~/.cache/chexscale once.
    """
    use_store(workspace)
    # pyfunc keeps the name of the folder that was registered.
    inside = Path("artifacts") / workspace.model.name
    with _as_input_error(workspace):
        client = mlflow.MlflowClient()
        found = client.get_model_version(name, str(number))
        own = (
            None
            if workspace.tracking_server
            else path_of(workspace, client.get_model_version_download_uri(name, number))
        )
    if own:
        # Not by MLflow, whose address may name the workspace that this one was copied from.
        if not (own / inside).is_dir():
            raise InputError(
                f"the files of {name} version {number}, which belong in {own / inside}, are missing: copy the whole "
                "workspace again, restore them from a backup, or register the model again"
            )
        return own / inside
    cache = models_cache()
    folder = cache / f"{name}-{number}-{found.run_id}-{found.creation_timestamp}"
    try:
        with locked(cache, wait=True):
            if not folder.exists():
                with atomic_folder(folder) as building:
                    mlflow.artifacts.download_artifacts(f"models:/{name}/{number}", dst_path=str(building))
        return folder / inside
    except (MlflowException, OSError) as error:
        if is_of_disk(error):
            raise
        raise InputError(
            f"the files of {name} version {number} cannot be fetched from {workspace.store} ({error}): look at the "
            "version in MLflow's UI, or register the model again"
        ) from error


def tests_of(workspace: Workspace, name: str, number: int) -> list[dict]:
    """Returns the summaries of a version's external tests, the oldest first, without tags that others have made."""
    use_store(workspace)
    with _as_input_error(workspace):
        tags = mlflow.MlflowClient().get_model_version(name, str(number)).tags
    found = []
    for key, value in tags.items():
        with suppress(ValueError, TypeError, KeyError):
            if key.startswith(TESTED_AT):
                test = json.loads(value)
                found.append((test["at"], test["run_id"], test))
    return [test for *_, test in sorted(found, key=lambda one: one[:2])]


def trained_versions(workspace: Workspace, delta_table_id: str) -> set[int]:
    """Returns the versions of this Delta table that registered models were trained on."""
    use_store(workspace)
    found = mlflow.search_model_versions(filter_string=f"tags.delta_table_id = '{delta_table_id}'")
    return {int(version.tags["delta_version"]) for version in found}
