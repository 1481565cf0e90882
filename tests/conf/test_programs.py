import sys
from pathlib import Path

import pytest

from conf.programs import SPARK_DEFAULTS, own_environment


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
