"""Training on a Spark cluster of two workers, by the command."""

import os
import subprocess

import pytest

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


@pytest.mark.spark
@pytest.mark.slow
def test_two_workers_train_together_and_a_failed_training_fails_the_command(tmp_path, cluster):
    workspace, *_ = write_small_table(tmp_path / "workspace", rows_per_row_group=5)
    place = ["--workspace", os.path.relpath(workspace.root, PROJECT)]
    good = spark_train(cluster.url, *place, "--training.model", "simple_cnn", "--training.epochs", "2")
    assert good.returncode == 0, good.stdout
    assert "epoch 2/2: training loss" in good.stdout
    assert f"Next: python inference/register.py --workspace {workspace.root} --training.model simple_cnn" in good.stdout
    assert (workspace.checkpoints / "best.pt").exists() and '"world_size": 2' in workspace.summary.read_text()
    bad = spark_train(cluster.url, *place, "--training.model", "nonsense")
    assert bad.returncode == 2, bad.stdout
    assert "error: training.model is 'nonsense'" in bad.stdout
    assert bad.stdout.endswith("error: rank 0 ended with exit code 2; its message is above\n")
    assert "Traceback" not in bad.stdout
    many = spark_train(cluster.url, *place, "--jobs.num_ranks", "3")
    assert many.returncode == 2
    assert "3 tasks must run at the same time, and the cluster has room for 2 now" in many.stdout
