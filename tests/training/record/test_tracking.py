"""Tracking by a real MLflow server that is down, goes away and comes back, and of two hosts."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pytest

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.vocabulary import metric_name
from jobs.benchmarks.stores.link import free_port
from tests.training.commands import (
    BIN,
    PROJECT,
    SETTINGS,
    command_of,
    finish,
    train_here,
    wait_for_epoch,
)
from training.record.outbox import Outbox
from training.record.store import use_store


class Server:
    """An MLflow server with a database and artifacts in a folder."""

    def __init__(self, folder):
        self.folder, self.address = folder, f"http://127.0.0.1:{free_port()}"

    def start(self) -> None:
        command = [BIN / "mlflow", "server", "--port", self.address.rpartition(":")[2], "--workers", "1"]
        stores = [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/db",
            "--artifacts-destination",
            f"{self.folder}/files",
        ]
        log = (self.folder / "log").open("a")
        # Without the jobs of its language models' pages, which are processes of their own.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            [*map(str, command), *stores], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5)
                return
            except (urllib.error.URLError, TimeoutError):
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.2)

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A test that stops it starts it again."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def train(workspace: Workspace, server: Server, **changes) -> subprocess.Popen:
    command = [*command_of(workspace, "none", {**SETTINGS, **changes}), "--tracking_server", server.address]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.long
def test_a_server_that_goes_away_hears_all_later(workspace, server):
    workspace.tracking_db.unlink()
    run = train(workspace, server, epochs=3)
    wait_for_epoch(run, workspace, 1)
    server.stop()
    output = finish(run)
    assert re.search(r"is unreachable \(\w+\); the training continues", output)
    missed = Workspace.at(str(workspace.root), server.address).unsent
    assert f"{missed} keeps what MLflow's server has missed" in output
    assert "Traceback" not in output
    run_id = json.loads(workspace.summary.read_text())["training"]["run_id"]

    # The next training is refused while the server is down, and sends what the last one could not.
    with pytest.raises(InputError, match=f"no MLflow server answers at {server.address}"):
        train_here(workspace, "--tracking_server", server.address, epochs=1)
    assert missed.exists()
    server.start()
    train_here(workspace, "--tracking_server", server.address, epochs=1)
    assert not missed.exists()
    use_store(Workspace.at(str(workspace.root), server.address))
    told = mlflow.get_run(run_id)
    assert told.info.status == "FINISHED"
    client = mlflow.MlflowClient()
    assert [point.step for point in client.get_metric_history(run_id, "val_loss")] == [1, 2, 3]
    assert "test_auroc_mean" in told.data.metrics
    names = {artifact.path for artifact in client.list_artifacts(run_id)}
    assert {"checkpoints", "figures", "evaluation.json", "predictions.parquet"} <= names
    assert not workspace.tracking_db.exists()


def test_what_a_server_has_missed_arrives_in_order_and_what_it_refuses_blocks_nothing(tmp_path, server, capsys):
    mlflow.set_tracking_uri(server.address)
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    outbox, replaced = (Outbox(tmp_path / name, server.address) for name in ("unsent.json", "replaced.json"))
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    outbox.send("log_batch", run_id, [("loss", 0.5, 1, 0)])
    # One outage for all, because the server takes ten seconds of a core to start.
    server.stop()
    for step in (1, 2):
        outbox.send("log_batch", run_id, [("loss", 0.5 - step / 10, 1, step)])
    assert len(json.loads(outbox.path.read_text())) == 2
    (tmp_path / "figure.png").write_text("of this training")
    replaced.send("log_artifact", run_id, str(tmp_path / "figure.png"))
    (tmp_path / "figure.png").write_text("of another training")
    (old / "figure.txt").write_text("of a workspace that is moved")
    Outbox(old / "unsent.json", server.address).send("log_artifact", run_id, str(old / "figure.txt"), "figures")
    old.rename(new)
    server.start()

    # Another process, later.
    assert Outbox(outbox.path, server.address).flush()
    assert not outbox.path.exists()
    assert [point.value for point in client.get_metric_history(run_id, "loss")] == [0.5, 0.4, 0.3]
    outbox = Outbox(outbox.path, server.address)
    outbox.send("set_tag", "nobody", "a", "b")
    outbox.send("log_artifact", run_id, str(tmp_path / "gone"))
    said = capsys.readouterr().out
    assert "MLflow refuses set_tag of run nobody, which is left out" in said
    assert f"MLflow refuses log_artifact of run {run_id}" in said
    assert Outbox(replaced.path, server.address).flush()
    assert "figure.png was replaced by a later training" in capsys.readouterr().out
    assert not client.list_artifacts(run_id)
    assert Outbox(new / "unsent.json", server.address).flush()
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/figures/figure.txt") == "of a workspace that is moved"
    Outbox(outbox.path, server.address).send("set_terminated", run_id, "FAILED")
    assert client.get_run(run_id).info.status == "FAILED"


@pytest.fixture
def run_id(new_store, tmp_path):
    """Of a run in a database."""
    new_store(Workspace.at(str(tmp_path)))
    use_store(Workspace.at(str(tmp_path)))
    return mlflow.MlflowClient().create_run("0").info.run_id


def test_a_finding_may_have_any_name(run_id):
    names = ["COVID+", "Opacity (left)", "a&b", "Pleural, left", "x//y", "../z", "Ödem", "50%"]
    for name in names:
        mlflow.MlflowClient().log_metric(run_id, metric_name(f"val_auroc_{name}"), 0.5)
    assert len(mlflow.get_run(run_id).data.metrics) == len(names)


def test_a_disk_under_the_database_that_fails_is_told(run_id, tmp_path):
    outbox = Outbox(tmp_path / "unsent.json", "")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError) as raised:
            outbox.send("log_batch", run_id, [("loss", 0.5, 1, step) for step in range(900)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(tmp_path))


def test_a_database_is_complete_or_not_there(tmp_path, monkeypatch):
    workspace = Workspace.at(str(tmp_path / "run"))
    with monkeypatch.context() as half_way:
        half_way.setattr("training.record.store.MEMORY", Path("/nowhere"))
        # MLflow has made the first tables by then.
        half_way.setattr("mlflow.store.db.utils._upgrade_db", lambda engine: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            use_store(workspace, make=True)
    assert list(workspace.root.iterdir()) == []
    with pytest.raises(InputError, match="no MLflow database at .* put the file back"):
        use_store(workspace)
    assert list(workspace.root.iterdir()) == []
    use_store(workspace, make=True)
    assert [path.name for path in workspace.root.iterdir()] == [workspace.tracking_db.name]
    made = workspace.tracking_db.read_bytes()
    assert [found.name for found in mlflow.search_experiments()] == ["Default"]
    use_store(workspace)
    assert workspace.tracking_db.read_bytes() == made


@pytest.mark.long
def test_two_hosts_train_together_and_each_is_monitored(workspace, server):
    # To torchrun each agent is a host, here with a name of its own.
    meeting = f"127.0.0.1:{free_port()}"
    agents = []
    for node in range(2):
        together = ["--nnodes", "2", "--node_rank", node, "--nproc_per_node", "1", "--rdzv_backend", "static"]
        script = command_of(workspace, "none", {**SETTINGS, "epochs": 20})[1:]
        command = [BIN / "torchrun", *together, "--rdzv_endpoint", meeting, "--local_addr", "127.0.0.1"]
        agents.append(
            subprocess.Popen(
                [*map(str, command), *script, "--tracking_server", server.address],
                cwd=PROJECT,
                env={**os.environ, "MLFLOW_SYSTEM_METRICS_NODE_ID": f"host{node}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [finish(agent) for agent in agents]
    assert "Best epoch" in "".join(outputs)
    summary = json.loads(workspace.summary.read_text())["training"]
    assert (summary["launcher"], summary["world_size"]) == ("torchrun", 2)
    use_store(Workspace.at(str(workspace.root), server.address))
    measured = set(mlflow.get_run(summary["run_id"]).data.metrics)
    assert {f"system/host{node}/cpu_utilization_percentage" for node in range(2)} <= measured


def test_databricks_is_asked_by_its_name(tmp_path, server, monkeypatch):
    """The MLflow server stands for Databricks' own, which has the same addresses for runs."""
    workspace = Workspace.at(str(tmp_path), "databricks")
    monkeypatch.setenv("DATABRICKS_HOST", server.address)
    monkeypatch.setenv("DATABRICKS_TOKEN", "a token")
    use_store(workspace)
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    assert mlflow.MlflowClient(server.address).get_run(run_id).info.status == "RUNNING"
    assert mlflow.get_registry_uri() == "databricks-uc"
    Outbox(tmp_path / "unsent.json", "databricks").send("log_batch", run_id, [("loss", 0.5, 1, 0)])
    assert mlflow.MlflowClient(server.address).get_run(run_id).data.metrics == {"loss": 0.5}
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    with pytest.raises(InputError, match="MLflow cannot use databricks .*credential.*check the address"):
        use_store(workspace)
