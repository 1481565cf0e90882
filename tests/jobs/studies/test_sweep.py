"""The command that runs a study, on a small table, with real trainings."""

import contextlib
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from conf.scenario_file import read_scenario
from conf.settings import Jobs
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from jobs.studies.results import PAGE, TABLE
from jobs.studies.state import other_training, prepare
from jobs.studies.study import read_study
from tests.in_process import Ended, run_here
from tests.inference.conftest import SIZE_PX, write_table
from tests.training.commands import PROJECT
from tests.training.toy_training import make_state
from training.network.checkpoint import BEST, LAST, Checkpoint
from training.record.store import use_store

STUDY = f"""
base: base.yaml
settings: {{training.size_px: {SIZE_PX}, training.epochs: 1, training.batch_size: 64}}
runs:
  first: {{}}
  second: {{seed: 1}}
  broken: {{weights: nowhere.pt}}
"""
BASE = "workspace: not/here\ntraining: {model: simple_cnn}\n"


def sweep(*arguments: str) -> Ended:
    return run_here(PROJECT / "jobs" / "sweep.py", *arguments)


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """Arguments for a study on an existing table, which needs no ETL."""
    write_table(Workspace.at(str(tmp_path / "table")))
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(STUDY)
    folder = tmp_path / "study folder"
    return [str(tmp_path / "study.yaml"), "--workspace", str(folder), "--etl.table", str(tmp_path / "table")]


@pytest.mark.long
def test_a_study_trains_what_is_missing_and_compares_what_is_there(arguments, tmp_path):
    workspace, study = Workspace.at(arguments[2]), Path(arguments[0])
    code, said, _ = sweep(*arguments, "--prepare")
    assert (code, "without --prepare" in said) == (0, True)
    scenario = read_scenario(str(workspace.root / "runs" / "second" / "scenario.yaml"), "test")
    assert (scenario.training.seed, Workspace.of(scenario).root) == (1, workspace.root / "runs" / "second")
    assert not list(workspace.root.glob("runs/*/checkpoints"))

    code, said, errors = sweep(*arguments)
    assert code == 2
    assert "study: 3 runs, 0 finished before" in said and "2 runs beside first: test split of Delta version 0" in said
    assert "broken: failed with exit code 2" in said and "nowhere.pt" in said
    assert "1 of 3 runs failed: broken (exit code 2," in errors
    runs, page = workspace.root / "runs", workspace.root / "compared" / PAGE
    assert {folder.name for folder in runs.iterdir() if folder.is_dir()} == {"first", "second", "broken"}
    assert "differ in the seed alone" in page.read_text()
    made = (runs / "first" / "checkpoints" / BEST).stat().st_mtime_ns

    # A training that was changed is trained anew, and its earlier one is kept.
    study.write_text(STUDY.replace("weights: nowhere.pt", "seed: 2").replace("seed: 1", "learning_rate: 0.01"))
    # In a process of its own, because MLflow keeps a database open that is moved here.
    command = [sys.executable, "jobs/sweep.py", *arguments]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    code, said, errors = ended.returncode, ended.stdout, ended.stderr
    assert (code, errors) == (0, "")
    assert "second: another training is there (learning_rate was 0.001, is 0.01; seed was 1, is 0)" in said
    assert "3 runs, 1 finished before" in said and "broken: finished" in said and "3 runs beside first" in said
    assert Checkpoint.load(runs / "second~1" / "checkpoints" / BEST).settings["training"]["seed"] == 1
    assert (runs / "first" / "checkpoints" / BEST).stat().st_mtime_ns == made
    table = pd.read_csv(page.with_name(TABLE)).set_index("run")
    assert table["training.learning_rate"].to_dict() == {"first": 0.001, "second": 0.01, "broken": 0.001}
    written = page.stat().st_mtime_ns

    code, said, errors = sweep(*arguments)
    assert (code, errors) == (0, "")
    assert "3 runs, 3 finished before" in said and "started" not in said
    assert page.stat().st_mtime_ns == written
    _check_mlflow(workspace)

    # Another reference is another comparison; a study that has moved needs no training.
    moved = shutil.move(workspace.root, tmp_path / "moved")
    code, said, _ = sweep(*arguments[:2], str(moved), *arguments[3:], "--reference", "second")
    assert code == 0 and "3 runs, 3 finished before" in said
    assert "beside second" in (moved / "compared" / PAGE).read_text()


def test_a_training_that_was_interrupted_and_then_changed_is_kept_aside(arguments, capsys):
    study, workspace = read_study(arguments[0]), Workspace.at(f"{arguments[2]}/runs/first")
    table = TableVersion.of(Workspace.at(arguments[4]))
    settings = replace(study.runs["first"], workspace=str(workspace.root))
    of = {"delta_table_id": "table", "delta_version": 0}
    plan = {"images_per_step": 64, "parallel_streams": 1}
    for epochs, aside in ((1, False), (9, True)):
        state = make_state(settings=asdict(replace(settings.training, epochs=epochs)), plan=plan, **of)
        state.save(workspace.checkpoints / LAST)
        prepare(settings, workspace, table)
        assert (workspace.checkpoints / LAST).exists() != aside
        assert Path(f"{workspace.root}~1").exists() == aside
    assert "epochs was 9, is 1" in capsys.readouterr().out
    # The same images per step by two ranks of half the batch are the same training.
    make_state(settings=asdict(settings.training), plan=plan, **of).save(workspace.checkpoints / LAST)
    halves = replace(settings.training, batch_size=32)
    assert not other_training(replace(settings, training=halves, jobs=Jobs(num_ranks=2)), workspace, table)
    assert other_training(replace(settings, jobs=Jobs(num_ranks=2)), workspace, table) == ["batch_size was 64, is 128"]


def test_a_table_that_is_there_is_never_made_anew(arguments):
    code, _, errors = sweep(*arguments, "--training.size_px", "48")
    assert code == 2 and f"has images of [{SIZE_PX}] px, the study needs [48] px too" in errors
    code, _, errors = sweep(*arguments[:-1], arguments[-1] + "/none")
    assert code == 2 and "no table of this program's version" in errors


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
    copy = runs["first"]
    history = client.get_metric_history(copy.info.run_id, "val_auroc_mean")
    own = Workspace.at(copy.data.tags["chexscale.folder"])
    use_store(own)
    own_client = mlflow.MlflowClient()
    source = own_client.get_run(copy.data.tags["chexscale.copy_of"])
    assert (copy.data.params, copy.info.start_time) == (source.data.params, source.info.start_time)
    assert runs["second"].data.params["training.learning_rate"] == "0.01"
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
        ([str(study), "--training.model", "nosuch", "--check"], "run seed0: training.model is 'nosuch'"),
        ([str(study), "--at_once", "-1"], "--at_once is -1"),
        ([str(tmp_path / "no.yaml")], "no.yaml cannot be read"),
        ([], "STUDY"),
    ):
        with contextlib.chdir(tmp_path):
            code, _, errors = sweep(*arguments, *workspace)
        assert code == 2 and wrong.lower() in errors.lower(), errors
    assert not (tmp_path / "workspace").exists()
