"""A tracking server that is down, goes away, and comes back: a real one, of MLflow."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from conf.workspace import Workspace
from tests.training.test_resume import SETTINGS, finish, wait_for_epoch
from tests.training.test_train import BIN, PROJECT, free_port, workspace  # noqa: F401, a fixture
from training.outbox import Outbox
from training.tracking import use_store


class Server:
    """An MLflow server with a database and artifacts in a folder."""

    def __init__(self, folder):
        self.folder, self.address = folder, f"http://127.0.0.1:{free_port()}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [BIN / "mlflow", "server", "--port", self.address.rpartition(":")[2], "--workers", "1"]
        stores = [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/db",
            "--artifacts-destination",
            f"{self.folder}/files",
        ]
        log = (self.folder / "log").open("a")
        self.process = subprocess.Popen([*map(str, command), *stores], stdout=log, stderr=log, start_new_session=True)
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


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def train(workspace: Workspace, server: Server, **changes) -> subprocess.Popen:  # noqa: F811
    words = [str(w) for key, value in {**SETTINGS, **changes}.items() for w in (f"--training.{key}", value)]
    command = [BIN / "python", "training/train.py", "--workspace", workspace.root, "--tracking_server", server.address]
    return subprocess.Popen(
        [*map(str, command), *words], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_server_that_goes_away_hears_all_later(workspace, server):  # noqa: F811
    run = train(workspace, server, epochs=3)
    wait_for_epoch(run, workspace, 1)
    server.stop()
    output = finish(run)
    assert "is away, the training goes on" in output
    assert f"{workspace.unsent} keeps what MLflow's server has missed" in output
    assert "Traceback" not in output
    run_id = json.loads(workspace.summary.read_text())["training"]["run_id"]

    # The next training is refused while the server is down, and sends what the last one could not.
    output = finish(train(workspace, server, epochs=1), code=2)
    assert re.search(f"error: no MLflow server answers at {server.address}", output)
    assert workspace.unsent.exists()
    server.start()
    finish(train(workspace, server, epochs=1))
    assert not workspace.unsent.exists()
    use_store(Workspace.at(str(workspace.root), server.address))
    told = mlflow.get_run(run_id)
    assert told.info.status == "FINISHED"
    client = mlflow.MlflowClient()
    assert [point.step for point in client.get_metric_history(run_id, "val_loss")] == [1, 2, 3]
    assert "test_auroc_mean" in told.data.metrics
    names = {artifact.path for artifact in client.list_artifacts(run_id)}
    assert {"checkpoints", "figures", "evaluation.json", "predictions.parquet"} <= names
    assert not workspace.tracking_db.exists()


def test_what_a_server_refuses_is_an_error_and_the_order_stays(tmp_path, server):
    mlflow.set_tracking_uri(server.address)
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    outbox = Outbox(tmp_path / "unsent.json", server.address)
    outbox.send("log_batch", run_id, [("loss", 0.5, 1, 0)])
    server.stop()
    for step in (1, 2):
        outbox.send("log_batch", run_id, [("loss", 0.5 - step / 10, 1, step)])
    assert len(json.loads(outbox.path.read_text())["calls"]) == 2
    server.start()
    # Another process, later.
    assert Outbox(outbox.path, server.address).flush()
    assert not outbox.path.exists()
    assert [point.value for point in client.get_metric_history(run_id, "loss")] == [0.5, 0.4, 0.3]
    with pytest.raises(MlflowException, match="nobody"):
        Outbox(outbox.path, server.address).send("set_tag", "nobody", "a", "b")
