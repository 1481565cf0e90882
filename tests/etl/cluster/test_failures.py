"""Failures of workers as text of Spark; then a job of many tasks that all fail alike."""

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import InputError
from etl.cluster.failures import WorkerError, passed_on, read_failure, received
from tests.etl.spark_commands import ENVIRONMENT, PROJECT


def spark_says(error: Exception) -> str:
    """The text of Spark's exception for one that a worker has raised, as PySpark 4.0 words it."""
    with pytest.raises(WorkerError) as raised, passed_on():
        raise error
    return (
        "An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.\n"
        ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 2 in stage 0.0 failed 4 times, most "
        "recent failure: Lost task 2.3 in stage 0.0 (TID 10): org.apache.spark.api.python.PythonException: Traceback "
        f'(most recent call last):\n  File "worker.py", line 2044, in main\n{WorkerError.__module__}.WorkerError: '
        f"{raised.value}\n\n\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:581)\n"
    )


@given(st.text())
def test_a_message_arrives_as_it_was_whatever_it_contains(message):
    error = read_failure(spark_says(InputError(message)))
    assert (type(error), str(error)) == (InputError, message)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/table/x"),
            InputError,
            "a worker cannot continue .*'/table/x'.*check",
        ),
        (ModuleNotFoundError("No module named 'cv2'"), InputError, "No module named 'cv2': .*install the environment"),
        (KeyError("age"), RuntimeError, "a worker of Spark failed:\nTraceback (?s:.*)KeyError: 'age'"),
    ],
)
def test_each_kind_of_failure_has_its_words(error, kind, said):
    with pytest.raises(kind, match=said) as raised, received(lambda _: True):
        raise ValueError(spark_says(error))
    assert "org.apache" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Lost task 2.3: x.SparkException: Python worker exited unexpectedly (crashed). Consider\n\tat x",
            r"\(Python worker exited unexpectedly \(crashed\)\): .*memory",
        ),
        (
            "Lost task: ExecutorLostFailure (executor 0 exited)\nDriver",
            r"\(ExecutorLostFailure \(executor 0 exited\)\): ",
        ),
        (
            "x.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker",
            "another version of Python .*PYSPARK_PYTHON",
        ),
        ('java.io.IOException: Cannot run program "/a/python": error=2', "cannot start Python: .*PYSPARK_PYTHON"),
        ("Traceback\nModuleNotFoundError: No module named 'etl'\n\tat", r"No module named 'etl'\): a worker lacks"),
    ],
)
def test_what_spark_itself_reports_gets_a_next_step(text, said):
    error = read_failure(text)
    assert isinstance(error, InputError)
    assert "\n" not in str(error)
    with pytest.raises(InputError, match=said):
        raise error


def test_other_exceptions_are_left_alone():
    for error, is_of_spark in ((ValueError("java.lang.Strange"), True), (OSError("ModuleNotFoundError"), False)):
        with pytest.raises(type(error)) as raised, received(lambda _, answer=is_of_spark: answer):
            raise error
        assert raised.value is error


PROGRAM = """
import pyarrow as pa
from conf.errors import InputError, run_command
from etl.cluster.workers import SparkWorkers

def fail(*_):
    raise OSError(30, "Read-only file system", "/table")

def fail_rows(batches, threads):
    fail()
    yield

rows = pa.table({"row": list(range(400))})

def main():
    with SparkWorkers() as workers:
        try:
            workers.map(fail, list(range(40)), [1] * 40, "test")
        except InputError as error:
            print(error, flush=True)
        workers.map_in_arrow(fail_rows, rows, rows.schema, 10, "test")

run_command(main)
"""


@pytest.mark.long
@pytest.mark.spark
def test_many_tasks_that_fail_alike_give_one_line(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = ["spark-submit", "--master", "local[2,4]", str(program)]
    finished = subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    # A worker process that Spark ends while it waits for its next task reports this, now and then.
    said = re.sub(
        r"Traceback \(most recent call last\):\n(  .*\n)+(EOFError|ConnectionResetError: .*)\n",
        "",
        finished.stdout + finished.stderr,
    )
    # A slow machine also says how far it has come.
    lines = [line for line in said.splitlines() if "incubator modules" not in line and not line.startswith("test: ")]
    assert len(lines) == 2, said
    message = "a worker cannot continue ([Errno 30] Read-only file system: '/table'): nothing"
    assert lines[0].startswith(message) and lines[1].startswith(f"error: {message}")
    assert finished.returncode == 2
