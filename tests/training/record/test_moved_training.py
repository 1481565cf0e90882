"""Training in a workspace that was copied: runs and files stay together, and the original is left alone."""

import json
import shutil

import mlflow
import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from conf.settings import Settings
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from tests.conftest import ODD
from tests.training.commands import train_here
from training.record.store import use_store
from training.record.tracking import TrackedRun


def files(workspace: Workspace) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in sorted(workspace.root.rglob("*")) if file.is_file()}


def last_run(workspace: Workspace) -> mlflow.entities.Run:
    use_store(workspace)
    return mlflow.get_run(json.loads(workspace.summary.read_text())["training"]["run_id"])


@pytest.mark.usefixtures("undrawn")
def test_a_copy_trains_in_its_own_folder(workspace, tmp_path, capsys):
    train_here(workspace, epochs=1)
    assert not workspace.events.exists(), "without training.tensorboard"
    first = last_run(workspace).info.run_id
    copy = Workspace.at(str(shutil.copytree(workspace.root, tmp_path / ODD)))
    before = files(workspace)
    capsys.readouterr()
    train_here(copy, epochs=1)
    assert f"copied from {workspace.root}: " in capsys.readouterr().out
    for run_id in (first, last_run(copy).info.run_id):
        assert mlflow.get_run(run_id).info.artifact_uri == f"{copy.artifacts.as_uri()}/{run_id}/artifacts"
        assert (copy.artifacts / run_id / "artifacts" / "checkpoints" / "best.pt").is_file()

    # As --resume does: it continues the run of the original.
    _artifact_repos_cache.clear()
    with TrackedRun(copy, Settings(), TableVersion.of(copy), None, run_id=first) as run:
        run.log_figure(copy.figures / "training.png")
        assert run.run_id == first
    assert files(workspace) == before
