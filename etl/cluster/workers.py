"""Functions over the cluster's Python workers: the one owner of pyspark. No pixel passes the JVM."""

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
from pyspark import TaskContext
from pyspark.sql import SparkSession
from tqdm import tqdm

from conf.errors import InputError
from etl.contract.storage import is_of_a_store

Batches = Iterator[pa.RecordBatch]


class SparkWorkers:
    """A quiet session that starts with the first piece of work and stops at the end of the `with`."""

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
        """function(item) of each item, in the items' order, each as one task on any worker.

        images: of each item, for the progress bar with its rate and remaining time. A task that goes down with its
        worker is tried again.
        """
        if not items:
            return []
        self.spark = self.spark or start_spark(self.master)
        context = self.spark.sparkContext
        tasks = context.parallelize(items, len(items))
        with _progress(context.statusTracker(), images, title):
            results = tasks.map(partial(_try, function)).collect()
        if failed := next((result for result in results if isinstance(result, OSError)), None):
            raise InputError(
                f"a worker cannot go on ({failed}): nothing was committed; check the rights and the space where the "
                "table lies, and run it again"
            )
        return results

    def map_in_arrow(
        self,
        function: Callable[[Batches, int], Batches],
        rows: pa.Table,
        schema: pa.Schema,
        rows_per_task: int,
        title: str,
    ) -> pa.Table:
        """What function(batches, num_threads) gives of all rows, in their order, by Spark's mapInArrow.

        function: batches of `rows` to batches of `schema`. num_threads: the cores that Spark lends a task (its setting
        spark.task.cpus): tasks that keep to them never take more than there are. The result is held in memory here.
        A task that goes down with its worker is tried again.
        """
        self.spark = self.spark or start_spark(self.master)
        context = self.spark.sparkContext
        # As many for each core, so that none waits for another at the end.
        cores = context.defaultParallelism
        num_tasks = min(len(rows), -(-len(rows) // (rows_per_task * cores)) * cores)
        # Of its own, for its settings: a local table goes to Spark in so many parts, each in the order of the rows.
        session = self.spark.newSession()
        session.conf.set("spark.sql.leafNodeDefaultParallelism", num_tasks)
        session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", rows_per_task)
        spark_schema = session.createDataFrame(schema.empty_table()).schema
        results = session.createDataFrame(rows).mapInArrow(partial(_with_lent_cores, function), spark_schema)
        shares = [len(rows) * (task + 1) // num_tasks - len(rows) * task // num_tasks for task in range(num_tasks)]
        with _progress(context.statusTracker(), shares, title):
            return results.toArrow().cast(schema)


def _with_lent_cores(function: Callable[[Batches, int], Batches], batches: Batches) -> Batches:
    # Before each task Spark lets Python forget what it knows of the import path: of its own zip files, where it would
    # read their lists of contents again for each package in them, 0.2 s. What is not known need not be forgotten.
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimporter):
            del sys.path_importer_cache[path]
    # After each task it looks for garbage among all that the imports have made, 0.05 s.
    gc.freeze()
    return function(batches, TaskContext.get().cpus())


def _try(function: Callable[[Any], Any], item: Any) -> Any:
    """function(item), or the OSError that it raises: a full disk is no fault of the program and needs no trace."""
    try:
        return function(item)
    except OSError as error:
        return error
    except Exception as error:
        if not is_of_a_store(error):
            raise
        return OSError(str(error))


def start_spark(master: str | None = None) -> SparkSession:
    """The session, started where there is none."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("chexscale").config("spark.ui.showConsoleProgress", "false")
    if master:
        builder = builder.master(master)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


@contextmanager
def _progress(tracker, images: Sequence[int], title: str) -> Iterator[None]:
    """A progress bar over Spark's finished tasks; tracker: pyspark.StatusTracker."""
    done = threading.Event()

    def poll(bar: tqdm) -> None:
        while not done.wait(0.5):
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            finished = max((stage.numCompletedTasks for stage in stages if stage), default=0)
            if (done_images := round(finished * sum(images) / len(images))) > bar.n:
                bar.update(done_images - bar.n)

    with tqdm(total=sum(images), desc=title, unit="image", smoothing=0) as bar:
        thread = threading.Thread(target=poll, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
            bar.update(bar.total - bar.n)
        finally:
            done.set()
            thread.join()
