"""The entry of the image with Spark: what Spark on Kubernetes demands of it, with a Java that prints its arguments."""

import os
import subprocess
from pathlib import Path

import pytest

ENTRY = Path(__file__).parents[2] / "jobs" / "container" / "spark.sh"
# What Spark 4.0 sets in the container of an executor.
EXECUTOR = {
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@chexscale-etl:7078",
    "SPARK_EXECUTOR_ID": "2",
    "SPARK_EXECUTOR_CORES": "4",
    "SPARK_EXECUTOR_MEMORY": "2048m",
    "SPARK_APPLICATION_ID": "spark-1",
    "SPARK_EXECUTOR_POD_IP": "10.1.2.3",
    "SPARK_EXECUTOR_POD_NAME": "chexscale-exec-2",
    "SPARK_RESOURCE_PROFILE_ID": "0",
    "SPARK_CONF_DIR": "/opt/spark/conf",
    "SPARK_HOME": "/spark",
    **{f"SPARK_JAVA_OPT_{number}": f"-Dnumber={number} of 11" for number in range(11)},
}


@pytest.fixture
def entry(tmp_path):
    """Runs the entry; returns what it starts, word by word."""
    for name in ("java", "spark-submit"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@"\n')
        (tmp_path / name).chmod(0o755)

    def run(*words: str, **environment: str) -> list[str]:
        variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment}
        done = subprocess.run([str(ENTRY), *words], env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_an_executor_gets_its_options_in_order_and_all_that_the_backend_asks_for(entry):
    java, *words = entry("executor", **EXECUTOR)
    assert java == "java"
    assert words[:11] == [f"-Dnumber={number} of 11" for number in range(11)]
    assert words[11:15] == ["-Xms2048m", "-Xmx2048m", "-cp", "/opt/spark/conf:/spark/conf:/spark/jars/*"]
    assert words[15] == "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
    assert dict(zip(words[16::2], words[17::2], strict=True)) == {
        "--driver-url": EXECUTOR["SPARK_DRIVER_URL"],
        "--executor-id": "2",
        "--cores": "4",
        "--app-id": "spark-1",
        "--hostname": "10.1.2.3",
        "--resourceProfileId": "0",
        "--podName": "chexscale-exec-2",
    }


def test_a_driver_is_submitted_on_its_own_address(entry):
    words = entry(
        "driver", "--properties-file", "/opt/spark/conf/spark.properties", SPARK_DRIVER_BIND_ADDRESS="10.1.2.3"
    )
    assert words[0] == "spark-submit" and words[-2:] == ["--properties-file", "/opt/spark/conf/spark.properties"]
    assert "spark.driver.bindAddress=10.1.2.3" in words and words[words.index("--deploy-mode") + 1] == "client"


def test_anything_else_is_run_as_it_stands(entry):
    assert entry("printf", "%s\n", "a b", "executor") == ["a b", "executor"]


def test_an_executor_without_a_driver_ends_with_the_variables_name(tmp_path):
    done = subprocess.run([str(ENTRY), "executor"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode != 0 and "SPARK_HOME: unbound variable" in done.stderr
