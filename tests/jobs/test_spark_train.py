"""Training on a Spark cluster of two workers, by the command."""

import os
import re
import subprocess

import pytest

from conf.arguments import load_settings
from jobs.spark_train import words_for_executors
from tests.conftest import SIZE_PX, write_small_table
from tests.etl.spark_commands import ENVIRONMENT, PROJECT, QUICK_START


def spark_train(url: str, *arguments: str) -> subprocess.CompletedProcess:
    options = {
        "spark.executor.memory": "512m",
        "spark.executor.extraJavaOptions": QUICK_START,
        "spark.driver.extraJavaOptions": QUICK_START,
        "spark.scheduler.minRegisteredResourcesRatio": "1",
        "spark.cores.max": "2",
    }
    command = ["spark-submit", "--master", url]
    command += [word for name, value in options.items() for word in ("--conf", f"{name}={value}")]
    command += ["jobs/spark_train.py", *arguments, "--training.size_px", str(SIZE_PX), "--training.batch_size", "4"]
    return subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


@pytest.mark.clusters
def test_two_workers_train_together_and_a_failed_rank_ends_all(tmp_path, cluster):
    workspace, *_ = write_small_table(tmp_path / "workspace", rows_per_row_group=5)
    place = ["--workspace", os.path.relpath(workspace.root, PROJECT), "--jobs.num_ranks", "2"]
    good = spark_train(cluster.url, *place, "--training.model", "simple_cnn", "--training.epochs", "2")
    assert good.returncode == 0, good.stdout
    assert "epoch 2/2: training loss" in good.stdout
    next_step = "Next: python inference/register.py --jobs.num_ranks 2 --training.model simple_cnn"
    assert next_step in good.stdout and f"--workspace {workspace.root}" in good.stdout
    assert (workspace.checkpoints / "best.pt").exists() and '"world_size": 2' in workspace.summary.read_text()
    with workspace.exclusive():
        # Rank 0 fails before the ranks meet, and the other one waits for it.
        locked_out = spark_train(cluster.url, *place, "--training.model", "simple_cnn")
    assert locked_out.returncode == 2, locked_out.stdout
    assert re.search("error: rank 0 on .* exit code 2. Its last lines:\n  error: another command is", locked_out.stdout)
    assert "Traceback" not in locked_out.stdout


def test_executors_get_absolute_paths_and_the_scenarios_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("workspace: runs/own\n")
    (tmp_path / "first.pt").touch()
    typed = ["--config", "own.yaml", "--etl.table=tables", "--training.epochs", "3", "--training.weights", "first.pt"]
    words, scenario = words_for_executors(typed, load_settings("", typed))
    assert scenario == ("own.yaml", "workspace: runs/own\n")
    assert words[:2] == ["--training.epochs", "3"]
    places = dict(zip(words[2::2], words[3::2], strict=True))
    assert places == {
        "--workspace": f"{tmp_path}/runs/own",
        "--etl.table": f"{tmp_path}/tables",
        "--training.weights": f"{tmp_path}/first.pt",
    }
    words, _ = words_for_executors([], load_settings("", ["--etl.table", "s3://bucket/t", "--training.weights", "a@b"]))
    assert "s3://bucket/t" in words and "a@b" not in words
