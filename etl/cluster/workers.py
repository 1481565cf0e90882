"""Runs functions on the cluster's Python workers; the one owner of pyspark. No pixels pass through the JVM."""

import gc
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from zipimport import zipimporter

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext, TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from conf.progress import Progress, say
from conf.words import counted
from etl.cluster.failures import passed_on, received

Batches = Iterator[pa.RecordBatch]
RESULTS = pa.schema([("result", pa.binary())])
"""what `map` gets back: pickled values"""
SILENT = ("org.apache.spark.executor.Executor", "org.apache.spark.scheduler.TaskSetManager")
"""loggers that write a stack trace for each try of a task that fails; the driver says why a task has failed, once"""


class SparkWorkers:
    """A quiet Spark session that starts with the first work and stops when the `with` block ends.

    If a session is already running, as in a job of Databricks, it is used with its settings and left running.
    """

    def __init__(self, master: str | None = None):
        """master: such as local[2], unless a session runs already; None: what spark-submit or Spark itself says."""
        self.master = master
        self.spark: SparkSession | None = None
        self.end: Callable[[], None] = _leave_running

    def __enter__(self) -> "SparkWorkers":
        return self

    def __exit__(self, *_) -> None:
        self.end()

    def map(self, function: Callable[[Any], Any], items: Sequence, images: Sequence[int], title: str) -> list:
        """function(item) for each item, in the items' order; each call is one task on any worker.

        images: number of images in each item, for the rate and the remaining time of the progress. A task that fails or
        whose worker dies is tried again, as often as Spark's spark.task.maxFailures says. After that, all end: raises
        InputError if a task cannot read or write or its worker dies each time, RuntimeError for a bug.
        """
        if not items:
            return []
        # Not as an RDD, from whose tasks Databricks does not reach its volumes.
        rows = pa.table({"item": [pickle.dumps(item) for item in items]})
        results = self._tasks(partial(_call, function), rows, RESULTS, len(items), 1, images, title)
        return [pickle.loads(result) for result in results["result"].to_pylist()]

    def map_in_arrow(
        self,
        function: Callable[[Batches, int], Batches],
        rows: pa.Table,
        schema: pa.Schema,
        rows_per_task: int,
        title: str,
    ) -> pa.Table:
        """Applies function(batches, num_threads) to all rows with Spark's mapInArrow and keeps their order.

        function: turns batches of `rows` into batches of `schema`. num_threads: the cores that Spark gives each task
        (its setting spark.task.cpus); tasks that use no more never overload the machine. The result is held in memory
        here. Tasks are tried again, and errors raised, as in `map`.
        """
        # The same number of tasks per core, so that no core waits for another at the end.
        cores = self._started().sparkContext.defaultParallelism
        num_tasks = min(len(rows), -(-len(rows) // (rows_per_task * cores)) * cores)
        shares = [len(rows) * (task + 1) // num_tasks - len(rows) * task // num_tasks for task in range(num_tasks)]
        return self._tasks(function, rows, schema, num_tasks, rows_per_task, shares, title)

    def _started(self) -> SparkSession:
        if self.spark is None:
            self.spark, self.end = obtain_spark(self.master)
        return self.spark

    def _tasks(
        self,
        function: Callable[[Batches, int], Batches],
        rows: pa.Table,
        schema: pa.Schema,
        num_tasks: int,
        rows_per_batch: int,
        images: Sequence[int],
        title: str,
    ) -> pa.Table:
        """The rows that function(batches, num_threads) makes, in order; each task gets an equal share of `rows`."""
        # A session of its own for these settings: Spark cuts a local table into so many parts, each in row order.
        session = self._started().newSession()
        session.conf.set("spark.sql.leafNodeDefaultParallelism", num_tasks)
        session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", rows_per_batch)
        spark_schema = session.createDataFrame(schema.empty_table()).schema
        results = session.createDataFrame(rows).mapInArrow(partial(_with_lent_cores, function), spark_schema)
        with _progress(session.sparkContext.statusTracker(), images, title), received(is_of_spark):
            return results.toArrow().cast(schema)


def _with_lent_cores(function: Callable[[Batches, int], Batches], batches: Batches) -> Batches:
    # Before each task Spark invalidates Python's import caches. Python would then read the lists of contents of Spark's
    # zip files again for each package in them, 0.2 s. Without cache entries for them there is nothing to invalidate.
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimporter):
            del sys.path_importer_cache[path]
    # After each task Spark collects garbage; freezing spares it all objects that the imports have made, 0.05 s.
    gc.freeze()
    with passed_on():
        yield from function(batches, TaskContext.get().cpus())


def _call(function: Callable[[Any], Any], batches: Batches, _: int) -> Batches:
    for batch in batches:
        results = [pickle.dumps(function(pickle.loads(item))) for item in batch["item"].to_pylist()]
        yield pa.RecordBatch.from_arrays([pa.array(results, pa.binary())], schema=RESULTS)


def obtain_spark(master: str | None = None) -> tuple[SparkSession, Callable[[], None]]:
    """The Spark session of this process, and the function that ends it.

    A session that runs already keeps its settings and its log, and is not ended: others work with it too.
    """
    # PySpark has no public call that tells this: a session may run without being the active one of this thread.
    if SparkContext._active_spark_context:
        return SparkSession.getActiveSession() or SparkSession.builder.getOrCreate(), _leave_running
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("chexscale").config("spark.ui.showConsoleProgress", "false")
    # Tasks that must run at the same time wait a minute for room, not ten.
    builder = builder.config("spark.scheduler.barrier.maxConcurrentTasksCheck.interval", "5s")
    builder = builder.config("spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures", "12")
    if master:
        builder = builder.master(master)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    log4j = spark.sparkContext._jvm.org.apache.logging.log4j
    for name in SILENT:
        log4j.core.config.Configurator.setLevel(name, log4j.Level.OFF)
    return spark, spark.stop


def _leave_running() -> None:
    """Ends nothing: the session belongs to somebody else, or there is none."""


@contextmanager
def _progress(tracker, images: Sequence[int], title: str) -> Iterator[None]:
    """Progress over Spark's finished tasks, and how many had to be tried again; tracker: pyspark.StatusTracker."""
    done = threading.Event()
    failed: dict[int, int] = {}

    def poll(bar: Progress) -> None:
        while not done.wait(0.5):
            stages = list(filter(None, map(tracker.getStageInfo, tracker.getActiveStageIds())))
            failed.update((stage.stageId, stage.numFailedTasks) for stage in stages)
            finished = max((stage.numCompletedTasks for stage in stages), default=0)
            bar.update(max(0, round(finished * sum(images) / len(images)) - bar.done))

    with Progress(title, sum(images), smooth=False) as bar:
        thread = threading.Thread(target=poll, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        bar.update(bar.total - bar.done)
    if again := sum(failed.values()):
        say(
            f"{title}: {counted(again, 'task was', 'tasks were')} tried again after a worker had failed; "
            "Spark's UI and logs say why"
        )


def is_of_spark(error: Exception) -> bool:
    """Whether an exception is one of pyspark, or of the JVM behind it."""
    return isinstance(error, Py4JJavaError | PySparkException)
