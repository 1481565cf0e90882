"""Runs functions on the cluster's Python workers; the one owner of pyspark. No pixels pass through the JVM."""

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from zipimport import zipimporter

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from conf.progress import Progress, say
from conf.words import counted
from etl.cluster.failures import passed_on, received

Batches = Iterator[pa.RecordBatch]
SILENT = ("org.apache.spark.executor.Executor", "org.apache.spark.scheduler.TaskSetManager")
"""loggers that write a stack trace for each try of a task that fails; the driver says why a task has failed, once"""


class SparkWorkers:
    """A quiet Spark session that starts with the first work and stops when the `with` block ends."""

    def __init__(self, master: str | None = None):
        """master: such as local[2]; None: what spark-submit or Spark's own settings say."""
        self.master = master
        self.spark: SparkSession | None = None

    def __enter__(self) -> "SparkWorkers":
        return self

    def __exit__(self, *_) -> None:
        if self.spark:
            self.spark.stop()

    def map(self, function: Callable[[Any], Any], items: Sequence, images: Sequence[int], title: str) -> list:
        """Returns function(item) for each item, in the items' order; each call is one task on any worker.

        images: number of images in each item, for the rate and the remaining time of the progress. A task that fails or
        whose worker dies is tried again, as often as Spark's spark.task.maxFailures says. After that, all end: raises
        InputError if a task cannot read or write or its worker dies each time, RuntimeError for a bug.
        """
        if not items:
            return []
        self.spark = self.spark or start_spark(self.master)
        context = self.spark.sparkContext
        tasks = context.parallelize(items, len(items))
        with _progress(context.statusTracker(), images, title), received(is_of_spark):
            return tasks.map(partial(_passing_on, function)).collect()

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
        self.spark = self.spark or start_spark(self.master)
        context = self.spark.sparkContext
        # The same number of tasks per core, so that no core waits for another at the end.
        cores = context.defaultParallelism
        num_tasks = min(len(rows), -(-len(rows) // (rows_per_task * cores)) * cores)
        # A session of its own for these settings: Spark cuts a local table into so many parts, each in row order.
        session = self.spark.newSession()
        session.conf.set("spark.sql.leafNodeDefaultParallelism", num_tasks)
        session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", rows_per_task)
        spark_schema = session.createDataFrame(schema.empty_table()).schema
        results = session.createDataFrame(rows).mapInArrow(partial(_with_lent_cores, function), spark_schema)
        shares = [len(rows) * (task + 1) // num_tasks - len(rows) * task // num_tasks for task in range(num_tasks)]
        with _progress(context.statusTracker(), shares, title), received(is_of_spark):
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


def _passing_on(function: Callable[[Any], Any], item: Any) -> Any:
    with passed_on():
        return function(item)


def start_spark(master: str | None = None) -> SparkSession:
    """Returns the Spark session; starts one if there is none."""
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
    return spark


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
