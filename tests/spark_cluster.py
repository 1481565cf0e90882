"""A Spark cluster on this machine, a master and two workers with a core each, as a fixture for all tests."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.etl.spark_commands import ENVIRONMENT, QUICK_START
from tests.processes import wait_for


def kill(machine: psutil.Process) -> None:
    """Kills a process and all its children, as a power cut does."""
    for process in [machine, *machine.children(recursive=True)]:
        try:
            process.kill()
            process.wait(10)
        except psutil.NoSuchProcess:
            # It ended with its parent.
            continue


@dataclass
class Cluster:
    url: str
    workers: list[psutil.Process]


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    started: list[psutil.Process] = []
    # Without the environment's own settings, which silence it, the master logs its address.
    settings = tmp_path / "no settings"
    settings.mkdir()
    environment = {**ENVIRONMENT, "SPARK_CONF_DIR": str(settings), "SPARK_DAEMON_JAVA_OPTS": QUICK_START}

    def start(role: str, log: Path, *arguments: str) -> None:
        command = ["spark-class", f"org.apache.spark.deploy.{role}", "--host", "127.0.0.1", "--port", "0"]
        command += ["--webui-port", "0", *arguments]
        with log.open("wb") as output:
            started.append(psutil.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))

    try:
        log = tmp_path / "master.log"
        start("master.Master", log)
        url = wait_for(lambda: re.search(r"Starting Spark master at (\S+)", log.read_text()), 120).group(1)
        for name in ("one", "two"):
            work = ["--cores", "1", "--memory", "1g", "--work-dir", str(tmp_path / name)]
            start("worker.Worker", tmp_path / f"{name}.log", *work, url)
        yield Cluster(url, started[1:])
    finally:
        for daemon in filter(psutil.Process.is_running, started):
            kill(daemon)
