"""Spark's workers with functions of the tests; the tests of each stage cover the stage's own functions."""

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from etl.cluster.workers import SparkWorkers

NUMBERS = pa.table({"number": np.arange(1000, dtype=np.int64), "name": [None, "film"] * 500})
SCHEMA = pa.schema([("square", pa.int64()), ("process", pa.int64()), ("threads", pa.int64()), ("rows", pa.int64())])


def make_square(marker: Path | None = None):
    """A function that squares; if `marker` does not exist yet, the function makes it and kills its worker.

    It is nested so that Spark sends its code, because workers cannot import the tests.
    """

    def square(batches, num_threads):
        if marker and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for batch in batches:
            numbers = batch["number"].to_numpy()
            same = [np.full(len(numbers), value) for value in (os.getpid(), num_threads, len(numbers))]
            yield pa.RecordBatch.from_arrays([numbers**2, *same], schema=SCHEMA)

    return square


@pytest.mark.spark
def test_rows_keep_their_order_over_more_tasks_than_cores(spark):
    cores = spark.sparkContext.defaultParallelism
    before = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    result = SparkWorkers().map_in_arrow(make_square(), NUMBERS, SCHEMA, rows_per_task=64, title="test")
    assert result["square"].to_pylist() == [number**2 for number in range(1000)]
    assert set(result["threads"].to_pylist()) == {1}
    assert max(result["rows"].to_pylist()) <= 64
    # Workers are reused for further tasks, and keep the model that they have opened.
    assert len(set(result["process"].to_pylist())) <= cores
    assert spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch") == before


@pytest.mark.spark
def test_a_task_whose_worker_is_killed_is_tried_again(spark, tmp_path):
    function = make_square(tmp_path / "killed")
    result = SparkWorkers().map_in_arrow(function, NUMBERS, SCHEMA, rows_per_task=500, title="test")
    assert (tmp_path / "killed").exists()
    assert result["square"].to_pylist() == [number**2 for number in range(1000)]


@pytest.mark.spark
def test_fewer_rows_than_cores_and_one_row(spark):
    result = SparkWorkers().map_in_arrow(make_square(), NUMBERS.slice(3, 1), SCHEMA, rows_per_task=64, title="test")
    assert result["square"].to_pylist() == [9]
    assert result.schema == SCHEMA
