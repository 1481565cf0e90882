"""jobs/slurm on a real Slurm cluster of two nodes."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from conf.workspace import Workspace
from tests.conftest import SIZE_PX
from tests.jobs.slurm_cluster import Cluster, lacks, slurm_cluster
from tests.processes import wait_for
from tests.training.commands import finish, start
from training.network.checkpoint import BEST, LAST, Checkpoint

EPOCHS = 25
SMALL = ("--training.model", "simple_cnn", "--training.size_px", str(SIZE_PX), "--training.batch_size", "8")
TWO = ("--nodes=2",)

pytestmark = [
    pytest.mark.clusters,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(lacks()), reason=f"this machine lacks {', '.join(lacks())}: apt-get install slurm-wlm munge"
    ),
]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    # Not in pytest's folder: munge wants one that other users may enter.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm_cluster(Path(folder)) as running:
        yield running


def of(workspace: Workspace, epochs: int) -> tuple[str, ...]:
    return (
        "--workspace",
        str(workspace.root),
        *SMALL,
        "--training.epochs",
        str(epochs),
        "--training.checkpoint_steps",
        "1",
    )


def wait_for_state(cluster: Cluster, job: str, workspace: Workspace) -> None:
    """Waits until a state has been saved."""
    wait_for(lambda: (workspace.checkpoints / LAST).exists() or "error" in cluster.log_of(job))
    assert (workspace.checkpoints / LAST).exists(), cluster.log_of(job)


def test_a_requeued_training_of_two_nodes_ends_with_the_weights_of_an_undisturbed_one(cluster, copied_table, tmp_path):
    whole, broken = (copied_table(tmp_path / name) for name in ("whole", "broken"))
    job = cluster.submit("training", *of(broken, EPOCHS), options=TWO)
    wait_for_state(cluster, job, broken)
    cluster.call("scontrol", "requeue", job)
    cluster.start_now(job)
    log = cluster.finish(job)
    assert cluster.facts(job)["Restarts"] == "1"
    assert re.search(r"Stopped by SIGTERM in epoch \d+", log), log
    assert f"epoch {EPOCHS}/{EPOCHS}:" in log
    # Going on, the training does not begin again.
    assert log.count(f"epoch 1/{EPOCHS}:") <= 1
    finish(start(whole, "torchrun", epochs=EPOCHS))
    expected, got = (Checkpoint.load(workspace.checkpoints / BEST) for workspace in (whole, broken))
    assert (got.epoch, got.val_auroc) == (expected.epoch, expected.val_auroc)
    for name, tensor in expected.weights.items():
        assert torch.equal(got.weights[name], tensor), name


def test_a_job_cut_by_its_time_limit_goes_back_to_the_queue_and_goes_on(cluster, copied_table, tmp_path):
    workspace = copied_table(tmp_path / "workspace")
    # Slurm may be up to a minute early, so this comes in the first seconds, before there is any state.
    options = ("--nodes=1", "--time=1", "--signal=B:USR1@55")
    job = cluster.submit("training", *of(workspace, 2000), options=options)
    cluster.wait_for_restart(job, 1)
    first = cluster.log_of(job)
    assert "The time limit is near: the job goes back to the queue" in first
    wait_for(lambda: cluster.facts(job)["JobState"] == "PENDING")
    changed = cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    assert changed.returncode == 0, changed.stderr
    cluster.start_now(job)
    # On a fast machine the first run has got this far, too.
    wait_for(
        lambda: (
            re.search(r"epoch \d+/2000", cluster.log_of(job).removeprefix(first))
            or cluster.facts(job)["JobState"] == "FAILED"
        )
    )
    # What Slurm sends before the time limit.
    cluster.call("scancel", "--signal=USR1", "--batch", job)
    cluster.wait_for_restart(job, 2)
    assert "Stopped by SIGTERM in epoch" in cluster.log_of(job).removeprefix(first)
    assert (workspace.checkpoints / LAST).exists()
    cluster.call("scancel", job)


def test_a_training_on_two_devices_of_a_node_gives_way_to_an_urgent_job_and_resumes(cluster, copied_table, tmp_path):
    workspace = copied_table(tmp_path / "workspace")
    job = cluster.submit("training", *of(workspace, 8), options=("--nodes=1", "--gpus-per-node=2"))
    wait_for_state(cluster, job, workspace)
    urgent = cluster.submit("register", CHEXSCALE_VENV=str(tmp_path), options=("--partition=urgent", "--nodes=2"))
    cluster.finish(urgent, "FAILED")
    assert "DUE TO PREEMPTION" in cluster.log_of(job)
    cluster.start_now(job)
    log = cluster.finish(job)
    assert (cluster.facts(job)["Restarts"], "epoch 8/8" in log) == ("1", True)
    assert json.loads(workspace.summary.read_text())["training"]["world_size"] == 2


def test_a_failing_training_fails_its_job_with_a_message(cluster, copied_table, tmp_path):
    workspace = copied_table(tmp_path / "workspace")
    job = cluster.submit("training", "--workspace", str(workspace.root), "--training.model", "nonsense", options=TWO)
    log = cluster.finish(job, "FAILED")
    assert cluster.facts(job)["ExitCode"] != "0:0"
    assert "nonsense" in log
    assert "error: training failed on" in log


def test_a_checkout_without_an_environment_is_named(cluster, tmp_path):
    job = cluster.submit("register", CHEXSCALE_VENV=str(tmp_path))
    log = cluster.finish(job, "FAILED")
    assert f"error: {tmp_path}/bin/torchrun is not on" in log
    assert "`make setup`" in log
    assert cluster.facts(job)["ExitCode"] == "2:0"


# Longer than all the others together.
def test_all_stages_run_on_two_nodes_with_a_spark_cluster_and_horovodrun(cluster, tmp_path):
    folder = tmp_path / "workspace"
    settings = (
        "--workspace",
        str(folder),
        "--phantoms.num_images",
        "100",
        "--phantoms.size_px",
        "256",
        "--training.epochs",
        "1",
        *SMALL[:2],
    )
    job = cluster.submit("pipeline", *settings, options=TWO, CHEXSCALE_LAUNCHER="horovodrun")
    log = cluster.finish(job, seconds=400)
    assert re.search(r"ETL on \S+ \S+: srun .* --master spark://", log)
    assert "horovodrun --gloo" in log
    workspace = Workspace.at(str(folder))
    assert (workspace.checkpoints / BEST).exists()
    assert workspace.model.exists()
    shutil.rmtree(folder)
