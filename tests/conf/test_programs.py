import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from conf.programs import SPARK_DEFAULTS, own_environment, run_and_stop


@pytest.mark.parametrize("configured", ["no", "SPARK_HOME", "SPARK_CONF_DIR", "conf"])
def test_only_a_spark_that_nobody_has_configured_gets_our_defaults(configured, tmp_path, monkeypatch):
    package = tmp_path / "pyspark"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pyspark", raising=False)
    for name in ("SPARK_HOME", "SPARK_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    if configured == "conf":
        (package / "conf").mkdir()
    elif configured != "no":
        monkeypatch.setenv(configured, "/opt/spark")
    environment = own_environment()
    assert (environment.get("SPARK_CONF_DIR") == str(SPARK_DEFAULTS)) == (configured == "no")
    assert {file.name for file in SPARK_DEFAULTS.iterdir()} == {"log4j2.properties", "spark-defaults.conf"}


def test_this_python_and_its_programs_come_first(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    environment = own_environment()
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert environment["PYSPARK_PYTHON"] == sys.executable
    monkeypatch.setenv("PYSPARK_PYTHON", "/opt/python")
    assert own_environment()["PYSPARK_PYTHON"] == "/opt/python"


def test_a_command_that_is_stopped_stops_all_that_it_has_started():
    # As spark-submit, the program starts another one and waits for it.
    code = "import sys; from conf.programs import run_and_stop; sys.exit(run_and_stop(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "sh", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        started = psutil.Process(int(running.stdout.readline()))
        running.terminate()
        assert running.wait(timeout=30) == 128 + signal.SIGTERM
    psutil.wait_procs([started], timeout=30)
    assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
def test_the_exit_code_is_that_of_the_program(script, code):
    before = signal.getsignal(signal.SIGTERM)
    assert run_and_stop(["sh", "-c", script]) == code
    assert signal.getsignal(signal.SIGTERM) == before
