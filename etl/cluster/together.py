"""Runs a function in several tasks of a Spark cluster at the same time, each of which knows where the others are."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark import BarrierTaskContext
from pyspark.ml.torch.log_communication import LogStreamingClient, LogStreamingServer
from pyspark.sql import SparkSession

from conf.errors import InputError
from etl.cluster.failures import passed_on, received
from etl.cluster.workers import is_of_spark, start_spark


@dataclass(frozen=True)
class Place:
    """A task's place among those that run at the same time."""

    rank: int
    world_size: int
    local_rank: int
    """rank among the tasks on its host"""
    local_size: int
    meeting: tuple[str, int]
    """address of rank 0's host, and a port that was free there"""
    gpus: list[str]
    """Spark's addresses of the GPUs of all tasks on this host, in the order of their local ranks"""


def run_together(function: Callable[[Place, Callable[[str], None]], Any], number: int) -> list:
    """Returns function(place, say) of each task, in their order. No task is tried again.

    number: of tasks; 0 takes one per executor. say: writes a line to this process's standard error. Raises InputError
    if the cluster has no room for all of them, or loses one.
    """
    spark = start_spark()
    context, server = spark.sparkContext, LogStreamingServer()
    server.start()
    driver = (context.getConf().get("spark.driver.host"), server.port)
    try:
        with received(is_of_spark):
            number = number or count_executors(spark)
            slots = context.defaultParallelism // int(context.getConf().get("spark.task.cpus", "1"))
            # Spark itself would wait for ten minutes.
            if number > slots:
                raise InputError(
                    f"{number} tasks must run at the same time, and the cluster has room for {slots} now: start "
                    "fewer, lower spark.task.cpus, or wait for more executors "
                    "(spark.scheduler.minRegisteredResourcesRatio, spark.executor.instances)"
                )
            tasks = context.parallelize(range(number), number).barrier()
            return tasks.mapPartitions(partial(_run, function, driver)).collect()
    finally:
        server.shutdown()
        spark.stop()


def count_executors(spark: SparkSession) -> int:
    """Number of executors; 1 for local[*], where the driver is the only one."""
    return max(1, len(spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()) - 1)


def _run(function: Callable, driver: tuple[str, int], _: Iterator) -> Iterator[Any]:
    context = BarrierTaskContext.get()
    rank = context.partitionId()
    host = context.getTaskInfos()[rank].address.partition(":")[0]
    own_gpus = context.resources()["gpu"].addresses if "gpu" in context.resources() else []
    with socket.socket() as free:
        free.bind(("", 0))
        told = context.allGather(json.dumps([host, free.getsockname()[1], own_gpus]))
    hosts, ports, gpus = zip(*map(json.loads, told), strict=True)
    here = [other for other in range(len(hosts)) if hosts[other] == host]
    place = Place(
        rank,
        len(hosts),
        here.index(rank),
        len(here),
        (hosts[0], ports[0]),
        [gpu for other in here for gpu in gpus[other]],
    )
    client = LogStreamingClient(*driver)
    try:
        with passed_on():
            yield function(place, client.send)
    finally:
        client.close()
