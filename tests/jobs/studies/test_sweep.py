"""The command that runs a study, on a small table, with real trainings."""

import contextlib
import io
import runpy
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import mlflow
import pytest

from conf.workspace import Workspace
from jobs.studies.results import PAGE
from tests.conftest import SIZE_PX
from tests.training.commands import PROJECT
from training.network.checkpoint import BEST
from training.record.store import use_store

STUDY = f"""
base: base.yaml
settings: {{training.size_px: {SIZE_PX}, training.epochs: 1, training.batch_size: 8}}
runs:
  first: {{}}
  second: {{seed: 1}}
  broken: {{weights: nowhere.pt}}
"""
# As the small table's card says of its making, so that no ETL is needed.
BASE = (
    "workspace: not/here\ntraining: {model: simple_cnn}\netl: {format: csv, columns: {image: image}, split: hashed}\n"
)


def sweep(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command, which has this process's imports."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["sweep.py", *arguments])
        try:
            runpy.run_path(str(PROJECT / "jobs" / "sweep.py"), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    return code, stdout.getvalue(), stderr.getvalue()


@pytest.mark.slow
def test_a_study_trains_what_is_missing_and_compares_what_is_there(copied_table, tmp_path):
    workspace = copied_table(tmp_path / "study folder")
    study = tmp_path / "study.yaml"
    (tmp_path / "base.yaml").write_text(BASE)
    study.write_text(STUDY)
    arguments = (str(study), "--workspace", str(workspace.root))

    code, said, errors = sweep(*arguments)
    assert code == 2
    assert "study: 3 runs, 0 finished before" in said and "2 runs beside first: test split of Delta version 0" in said
    assert "1 of 3 runs failed: broken (exit code 2," in errors and "nowhere.pt" in errors
    runs = workspace.root / "runs"
    assert {folder.name for folder in runs.iterdir() if folder.is_dir()} == {"first", "second", "broken"}
    assert "first" in (workspace.root / "compared" / PAGE).read_text()
    made = (runs / "first" / "checkpoints" / BEST).stat().st_mtime_ns

    # A run that was changed is trained anew, and no other.
    study.write_text(STUDY.replace("weights: nowhere.pt", "seed: 2"))
    code, said, errors = sweep(*arguments)
    assert (code, errors) == (0, "")
    assert "3 runs, 2 finished before" in said and "broken: finished" in said and "3 runs beside first" in said
    assert (runs / "first" / "checkpoints" / BEST).stat().st_mtime_ns == made
    page = (workspace.root / "compared" / PAGE).stat().st_mtime_ns

    code, said, errors = sweep(*arguments)
    assert (code, errors) == (0, "")
    assert "3 runs, 3 finished before" in said and "started" not in said
    assert (workspace.root / "compared" / PAGE).stat().st_mtime_ns == page

    _check_mlflow(workspace)
    # A study that has moved needs no training.
    moved = shutil.move(workspace.root, tmp_path / "moved")
    code, said, _ = sweep(str(study), "--workspace", str(moved))
    assert code == 0 and "3 runs, 3 finished before" in said


def _check_mlflow(workspace: Workspace) -> None:
    """The study has one run, with a run of each training below it, as in the training's own store."""
    use_store(workspace)
    client = mlflow.MlflowClient()
    runs = {run.info.run_name: run for run in mlflow.search_runs(search_all_experiments=True, output_format="list")}
    parent = runs.pop("study study")
    assert set(runs) == {"first", "second", "broken"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}
    assert f"comparison/{PAGE}" in {file.path for file in client.list_artifacts(parent.info.run_id, "comparison")}
    copy = runs["second"]
    history = client.get_metric_history(copy.info.run_id, "val_auroc_mean")
    own = Workspace.at(str(Path(copy.data.tags["workspace"])))
    use_store(own)
    own_client = mlflow.MlflowClient()
    source = own_client.get_run(copy.data.tags["chexscale.copy_of"])
    assert (copy.data.params, copy.info.start_time) == (source.data.params, source.info.start_time)
    assert copy.data.params["training.seed"] == "1"
    points = own_client.get_metric_history(source.info.run_id, "val_auroc_mean")
    assert [(point.step, point.value) for point in history] == [(point.step, point.value) for point in points] != []


def test_a_study_is_checked_before_any_work(tmp_path):
    study = tmp_path / "study.yaml"
    (tmp_path / "base.yaml").write_text(BASE)
    study.write_text("base: base.yaml\nvary: {seed: [0, 1]}\n")
    workspace = ("--workspace", str(tmp_path / "workspace"))
    code, said, _ = sweep(str(study), *workspace, "--check", "--training.epochs=3")
    assert (code, said.splitlines()[1:]) == (0, ["seed0: seed 0", "seed1: seed 1"])
    for arguments, wrong in (
        ([str(study), "--reference", "seed2"], "--reference is seed2, expected one of seed0, seed1"),
        ([str(study), "--training.epoch", "1"], "did you mean --training.epochs?"),
        ([str(study), "--training.seed", "1"], "would be the same training"),
        ([str(tmp_path / "no.yaml")], "no.yaml cannot be read"),
        ([], "STUDY"),
    ):
        with contextlib.chdir(tmp_path):
            code, _, errors = sweep(*arguments, *workspace)
        assert code == 2 and wrong.lower() in errors.lower(), errors
    assert not (tmp_path / "workspace").exists()
