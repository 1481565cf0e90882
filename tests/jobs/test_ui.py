"""MLflow's UI on a workspace that was copied."""

import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pytest

from conf.workspace import Workspace
from jobs.benchmarks.stores.link import free_port
from training.record.store import use_store

PROJECT = Path(__file__).parents[2]


def start(workspace: Workspace, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "jobs/ui.py", "--workspace", str(workspace.root), *arguments]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_without_runs_the_next_step_is_named(tmp_path):
    process = start(Workspace.at(str(tmp_path / "none")))
    said, _ = process.communicate(timeout=180)
    assert (process.returncode, "no" in said and "mlflow.db yet: run `make demo`" in said) == (2, True)
    process = start(Workspace.at(str(tmp_path / "none")), "--tracking_server", "http://host:5000")
    said, _ = process.communicate(timeout=180)
    assert (process.returncode, "open this address in a browser" in said) == (2, True)


@pytest.mark.slow
def test_a_copy_shows_its_own_files(new_store, tmp_path):
    old = Workspace.at(str(tmp_path / "old"))
    new_store(old)
    use_store(old)
    experiment = mlflow.create_experiment("chexscale", old.artifacts.as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_text("of the copy", "note.txt")
    copy = Workspace.at(str(shutil.copytree(old.root, tmp_path / "copy")))
    next(old.artifacts.rglob("note.txt")).write_text("of the original")
    port = free_port()
    process = start(copy, "--port", str(port))
    try:
        address, end = (
            f"http://127.0.0.1:{port}/get-artifact?path=note.txt&run_uuid={run.info.run_id}",
            time.time() + 120,
        )
        while True:
            try:
                with urllib.request.urlopen(address, timeout=10) as answer:
                    assert answer.read() == b"of the copy"
                    return
            except (urllib.error.URLError, TimeoutError):
                assert process.poll() is None and time.time() < end
                time.sleep(0.3)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=180)
        assert f"copied from {old.root}: " in said
