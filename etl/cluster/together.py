"""Runs a function in several tasks of a Spark cluster at the same time, each of which knows where the others are."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark import BarrierTaskContext
from pyspark.ml.torch.log_communication import LogStreamingClient, LogStreamingServer

from etl.cluster.failures import passed_on, received
from etl.cluster.workers import is_of_spark, start_spark


@dataclass(frozen=True)
class TaskPlace:
    """A task's place among those that run at the same time."""

    host: str
    rank: int
    world_size: int
    local_rank: int
    """rank among the tasks on its host"""
    local_size: int
    meeting: tuple[str, int]
    """address of rank 0's host, and a port that was free there"""
    gpus: list[str]
    """Spark's addresses of the GPUs of all tasks on this host, in the order of their local ranks"""


def run_together(function: Callable[[TaskPlace, Callable[[str], None]], Any], number: int) -> list:
    """Returns function(place, say) of each task, in their order. All start together, and none is tried again.

    number: of tasks. say: writes a line to this process's standard error, unless the network loses it. If one fails,
    Spark ends the others. Raises InputError for what function raises so, for a cluster that has too little room for a
    minute, and for a lost executor.
    """
    spark = start_spark()
    context, server = spark.sparkContext, LogStreamingServer()
    server.start()
    driver = (context.getConf().get("spark.driver.host"), server.port)
    try:
        with received(is_of_spark):
            tasks = context.parallelize(range(number), number).barrier()
            return tasks.mapPartitions(partial(_run, function, driver)).collect()
    finally:
        server.shutdown()
        spark.stop()


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
    place = TaskPlace(
        host,
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
