"""The maintenance as a person runs it, with a real registry."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from conf.workspace import Workspace
from etl.contract.schema import SPLITS
from etl.contract.table import read_card
from tests.conftest import files_of
from tests.etl.tables import run
from training.record.store import use_store

PROJECT = Path(__file__).parents[2]


def maintain(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "jobs/maintain.py", "--workspace", str(workspace.root), *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_versions_of_registered_models_stay(nih_folder, new_store, tmp_path):
    workspace = Workspace.at(str(tmp_path / "workspace"))
    versions = {}
    for seed in range(3):
        card = run(nih_folder, workspace, seed=seed).card
        versions[card.delta_version] = files_of(workspace, card.delta_version)
    new_store(workspace)
    use_store(workspace)
    client = mlflow.MlflowClient()
    client.create_registered_model("chexscale")
    for table, version in ((card.delta_table_id, "1"), ("another table", "2")):
        tags = {"delta_table_id": table, "delta_version": version}
        client.create_model_version("chexscale", str(tmp_path), tags=tags)

    done = maintain(workspace, "--retention_hours", "0", "--keep_versions", "[0]")
    assert done.returncode == 0, done.stdout + done.stderr
    newest = read_card(str(workspace.shards)).delta_version
    assert f"versions kept: 0, 1, {newest}" in done.stdout
    on_disk = {str(file) for split in SPLITS for file in (workspace.shards / f"split={split}").iterdir()}
    assert on_disk == versions[0] | versions[1] | files_of(workspace, newest)
