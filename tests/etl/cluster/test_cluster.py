"""The ETL's command on a Spark cluster: a master and two workers, each a process of its own as on three machines."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from conf.workspace import Workspace
from etl.contract.schema import Card
from tests.conftest import NihFolder, png
from tests.etl.lung_networks import write_network
from tests.etl.spark_commands import ENVIRONMENT, PROJECT, QUICK_START, SCENARIO
from tests.etl.tables import rows_of, run
from tests.processes import wait_for
from tests.spark_cluster import kill


def catch_writer(job: subprocess.Popen, machines: list[psutil.Process], table: Path) -> tuple[psutil.Process, ...]:
    """A machine and its Python process that is writing a file of the table, suspended so that it cannot finish."""

    def find() -> tuple[psutil.Process, psutil.Process] | None:
        assert job.poll() is None, job.stdout.read()
        for machine in machines:
            for process in machine.children(recursive=True):
                if is_writing(process, table):
                    process.suspend()
                    # It runs until the signal reaches it.
                    wait_for(lambda p=process: p.status() == psutil.STATUS_STOPPED, 120, 0.01)
                    if is_writing(process, table):
                        return machine, process
                    process.resume()
        return None

    return wait_for(find, 120, 0.01)


def is_writing(process: psutil.Process, table: Path) -> bool:
    try:
        handles = [os.readlink(handle) for handle in Path(f"/proc/{process.pid}/fd").iterdir()]
    except OSError:
        # A handle or the process is gone already.
        return False
    return any(handle.startswith(str(table)) for handle in handles)


@pytest.mark.clusters
def test_a_cluster_that_loses_a_process_and_a_machine_gives_the_same_table(tmp_path, cluster):
    # Large enough that writing a file takes longer than finding the process that writes it.
    nih_folder, rng = NihFolder(tmp_path / "nih"), np.random.default_rng(0)
    for name, *_ in nih_folder.rows:
        film = rng.integers(120, 256, (800, 800), dtype=np.uint8)
        # What the network takes for lungs.
        film[200:600, 100:300], film[200:600, 500:700] = 60, 60
        nih_folder.put(name, png(film))
    local, network = Workspace.at(str(tmp_path / "local")), write_network(tmp_path / "network", 64)
    expected = rows_of(local, run(nih_folder, local, crop="lungs", lungs=str(network)).card)
    assert expected.crop.notna().all()
    workspace, scenario, events = (
        Workspace.at(str(tmp_path / "workspace")),
        tmp_path / "small.yaml",
        tmp_path / "events",
    )
    scenario.write_text(SCENARIO)
    events.mkdir()
    options = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
        "spark.executor.memory": "512m",
        "spark.executor.extraJavaOptions": QUICK_START,
        "spark.driver.extraJavaOptions": QUICK_START,
        # No task starts before both workers are there.
        "spark.cores.max": "2",
        "spark.scheduler.minRegisteredResourcesRatio": "1",
    }
    command = ["spark-submit", "--master", cluster.url]
    command += [word for name, value in options.items() for word in ("--conf", f"{name}={value}")]
    command += ["etl/preprocess.py", "--config", str(scenario), "--workspace", str(workspace.root)]
    # Relative to this folder; no worker runs in it.
    command += ["--etl.source", os.path.relpath(nih_folder.root, PROJECT)]
    command += ["--etl.table", os.path.relpath(tmp_path / "tables", PROJECT)]
    command += ["--etl.crop", "lungs", "--etl.lungs", os.path.relpath(network, PROJECT)]
    with subprocess.Popen(
        command, cwd=PROJECT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        try:
            _, writer = catch_writer(job, cluster.workers, tmp_path / "tables")
            writer.kill()
            writer.wait(10)
            machine, _ = catch_writer(job, cluster.workers, tmp_path / "tables")
            kill(machine)
            output, _ = job.communicate(timeout=240)
        finally:
            job.kill()
    assert job.returncode == 0, output
    assert "Traceback" not in output

    rows = rows_of(Workspace.at(str(tmp_path / "tables")), Card.read(workspace.card))
    pd.testing.assert_frame_equal(rows, expected)
    (log,) = events.iterdir()
    tasks = [event["Task Info"] for event in map(json.loads, log.open()) if event["Event"] == "SparkListenerTaskEnd"]
    assert len({task["Executor ID"] for task in tasks}) == 2
    assert sum(task["Failed"] for task in tasks) == 2
