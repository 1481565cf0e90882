"""A workspace that was moved or copied keeps its models, and never touches the workspace that it was copied from."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from conf.errors import InputError
from conf.workspace import Workspace
from conf.writing import write_json
from inference.candidate.gate import Decision
from inference.candidate.registration import register
from inference.model.graphs import save_graph
from inference.model.model_files import find_model
from inference.model.registry import champion_version, fetch_model, promote, rollback
from inference.model.served_model import open_served
from tests.conftest import ODD, make_checkpoint
from tests.inference.service import toy
from training.network.checkpoint import BEST, Checkpoint
from training.record.store import fetch_checkpoint, use_store

BRIGHT = toy.film(170, toy.SIZE_PX)


def register_toy(workspace: Workspace, weights: np.ndarray = toy.WEIGHTS) -> None:
    """What a training and a registration leave in the workspace and in its registry."""
    # As in a process of its own: MLflow remembers where the artifacts of a run are.
    _artifact_repos_cache.clear()
    use_store(workspace)
    experiment = mlflow.get_experiment_by_name("chexscale")
    if experiment is None:
        mlflow.create_experiment("chexscale", workspace.artifacts.as_uri())
        make_checkpoint().save(workspace.checkpoints / BEST)
        mlflow.set_experiment("chexscale")
        with mlflow.start_run() as run:
            mlflow.log_artifact(str(workspace.checkpoints / BEST), "checkpoints")
        (workspace.root / "run").write_text(run.info.run_id)
    properties = replace(toy.PROPERTIES, run_id=(workspace.root / "run").read_text())
    save_graph(toy.toy_graph(properties, weights), workspace.model / "int8")
    report = {"test_auroc": {}, "speed": {}, "localisation": {}}
    write_json(workspace.model / "report.json", report)
    write_json(workspace.model / "boxes.json", {})
    workspace.figures.mkdir(exist_ok=True)
    (workspace.figures / "test_auroc.png").touch()
    register(workspace, toy.NAME, properties, workspace.model, report, Decision(True, ["a test"], None, {}, [], []))


@pytest.fixture(scope="module")
def made(new_store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "a workspace"
    new_store(Workspace.at(str(folder)))
    register_toy(Workspace.at(str(folder)))
    return folder


@pytest.fixture
def old(made, tmp_path) -> Workspace:
    """A workspace as if it had been made where it is."""
    folder = shutil.copytree(made, tmp_path / "old place" / "workspace")
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        dump = "\n".join(database.iterdump())
    (folder / "mlflow.db").unlink()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.executescript(dump.replace(made.as_uri(), folder.as_uri()).replace(str(made), str(folder)))
    shutil.move(made, tmp_path / "made")
    yield Workspace.at(str(folder))
    shutil.move(tmp_path / "made", made)


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: its time of change and what it holds."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def move(workspace: Workspace, place: Path) -> Workspace:
    place.parent.mkdir(parents=True, exist_ok=True)
    return Workspace.at(str(workspace.root.rename(place)))


def copy(workspace: Workspace, place: Path) -> Workspace:
    return Workspace.at(str(shutil.copytree(workspace.root, place)))


def bright(workspace: Workspace) -> float:
    """The champion's probability of the first finding on a bright film."""
    served = open_served(find_model(workspace, toy.NAME), num_threads=1)
    assert served.folder.is_relative_to(workspace.root)
    return float(served.predict(BRIGHT[None]).probabilities[0, 0])


def test_a_moved_workspace_keeps_its_models(old, tmp_path):
    before = bright(old)
    here = move(old, tmp_path / "elsewhere" / ODD)
    assert bright(here) == before > 0.5
    path = fetch_checkpoint(here, f"models:/{toy.NAME}@champion")
    assert path.is_relative_to(here.root)
    assert Checkpoint.load(path).model == "simple_cnn"


def test_a_copy_answers_with_its_own_files(old, tmp_path):
    here = copy(old, tmp_path / "copy")
    before = content(here.root)
    # Meanwhile the original registers a model with opposite answers, whose files replace those of the first one.
    register_toy(old, -toy.WEIGHTS)
    for file in old.artifacts.rglob("best.pt"):
        file.write_bytes(b"damaged")
    shutil.copytree(fetch_model(old, toy.NAME, 2), fetch_model(old, toy.NAME, 1), dirs_exist_ok=True)
    assert bright(old) < 0.5 < bright(here)
    assert Checkpoint.load(fetch_checkpoint(here, f"models:/{toy.NAME}/1")).model == "simple_cnn"
    assert content(here.root) == before, "asking changes nothing"


def test_files_that_the_copy_lacks_are_not_taken_from_the_original(old, tmp_path):
    here = copy(old, tmp_path / "copy")
    shutil.rmtree(here.artifacts)
    with pytest.raises(InputError, match=rf"the files of .* version 1, .* {here.artifacts}/.*, are missing"):
        fetch_model(here, toy.NAME, 1)
    with pytest.raises(InputError, match="no checkpoint"):
        fetch_checkpoint(here, f"models:/{toy.NAME}/1")


@pytest.mark.parametrize("kept", [True, False])
def test_a_copy_registers_in_its_own_folder(old, tmp_path, kept, capfd):
    here, original = copy(old, tmp_path / ODD), content(old.root)
    if not kept:
        shutil.rmtree(old.root)
    register_toy(here, -toy.WEIGHTS)
    said = capfd.readouterr().out
    assert re.search(rf"{re.escape(str(old.root))}: \d+ addresses .* {re.escape(str(here.root))}\n", said)
    assert not old.root.exists() or content(old.root) == original
    assert kept or not old.root.exists(), "MLflow would make the folder anew"
    assert (champion_version(here, toy.NAME), bright(here) < 0.5) == (2, True)
    assert rollback(here, toy.NAME, "a test").version == 1
    assert bright(here) > 0.5
    # What MLflow alone reads is right from now on too.
    shutil.rmtree(old.root, ignore_errors=True)
    assert mlflow.pyfunc.load_model(f"models:/{toy.NAME}/1").predict(BRIGHT[None]).iloc[0, 0] > 0.5
    run_id = (here.root / "run").read_text()
    assert {file.path for file in mlflow.MlflowClient().list_artifacts(run_id)} == {
        "checkpoints",
        "figures",
        "inference",
    }
    register_toy(here)
    assert "addresses" not in capfd.readouterr().out, "once is enough"


def test_one_workspace_at_two_places_in_turn(old, tmp_path):
    """As on two machines that mount it at different paths."""
    there = tmp_path / "other mount" / "workspace"
    for version in (2, 3):
        here = move(old, there)
        register_toy(here, (-1) ** version * toy.WEIGHTS)
        assert champion_version(here, toy.NAME) == version
        assert (bright(here) > 0.5) == (version == 2)
        old = move(here, old.root)
        assert (bright(old) > 0.5) == (version == 2)
        promote(old, toy.NAME, 1, "a test")
        assert bright(old) > 0.5


def test_a_link_to_the_workspace_is_the_workspace(old, tmp_path, capfd):
    (tmp_path / "link").symlink_to(old.root)
    link = Workspace.at(str(tmp_path / "link"))
    assert bright(link) > 0.5
    register_toy(link, -toy.WEIGHTS)
    assert "addresses" not in capfd.readouterr().out
    (tmp_path / "link").unlink()
    assert bright(old) < 0.5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_copy_that_may_only_be_read(old):
    # Not in pytest's own folder, which only root may enter.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        here = copy(old, Path(place) / "copy")
        for path in here.root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.seteuid(65534)
        try:
            assert bright(here) > 0.5
            assert fetch_checkpoint(here, f"models:/{toy.NAME}/1").is_relative_to(here.root)
        finally:
            os.seteuid(0)


def test_files_that_lie_outside_of_the_workspace_stay_where_they_are(old, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(fetch_model(old, toy.NAME, 1), outside / "artifacts" / old.model.name)
    use_store(old)
    mlflow.MlflowClient().create_model_version(toy.NAME, outside.as_uri())
    here = copy(old, tmp_path / "copy")
    assert fetch_model(here, toy.NAME, 2).is_relative_to(outside)
    register_toy(here)
    assert fetch_model(here, toy.NAME, 2).is_relative_to(outside)


@contextmanager
def elsewhere(workspace: Workspace, place: Path) -> Iterator[Workspace]:
    """The workspace at another place: a read-only mount if this user may mount, otherwise it is moved there."""
    place.mkdir()
    if subprocess.run(["mount", "--bind", "-o", "ro", workspace.root, place], capture_output=True).returncode:
        place.rmdir()
        yield move(workspace, place)
        return
    try:
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").touch()
        yield Workspace.at(str(place))
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_command_line_and_the_service_answer_from_a_moved_or_read_only_workspace(old, tmp_path):
    """Each in a process of its own."""
    film = tmp_path / "film.png"
    film.write_bytes(toy.png(toy.film(170)))
    script = toy.REPOSITORY / "inference" / "infer.py"
    with elsewhere(old, tmp_path / "elsewhere") as here:
        command = [sys.executable, str(script), f"--workspace={here.root}", "--format=json", str(film)]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert answer["findings"][0]["probability"] > 0.5
        with toy.running(here) as service:
            answer = service.predict(film.read_bytes()).json()
        assert answer["results"][0]["findings"][0]["probability"] > 0.5
