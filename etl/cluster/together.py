"""Runs a function in several tasks of a Spark cluster at the same time, each of which knows where the others are."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pyspark import BarrierTaskContext
from pyspark.ml.torch.log_communication import LogStreamingClient, LogStreamingServer

from etl.cluster.failures import passed_on, received
from etl.cluster.workers import Batches, is_of_spark, obtain_spark


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


def run_together(function: Callable[[TaskPlace, Callable[[str], None]], None], number: int) -> None:
    """Calls function(place, say) in each task. All tasks start together, and none is tried again.

    number: how many tasks. say: sends a line to the driver, which writes it to standard error; a line may be lost when
    the network fails. If a task fails, Spark ends the others. Raises an InputError of `function` here, and InputError
    if the cluster has too little room for a minute (in a session that runs already: as long as its settings say), or
    loses an executor.
    """
    spark, end = obtain_spark()
    server = LogStreamingServer()
    try:
        server.start()
        driver = (spark.sparkContext.getConf().get("spark.driver.host"), server.port)
        with received(is_of_spark):
            tasks = spark.range(0, number, 1, number)
            tasks.mapInArrow(partial(_run, function, driver), "done boolean", barrier=True).collect()
    finally:
        server.shutdown()
        end()


def _run(function: Callable, driver: tuple[str, int], _: Batches) -> Batches:
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
            function(place, client.send)
    finally:
        client.close()
    return iter(())
