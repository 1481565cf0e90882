"""What does a cluster cost the ETL? Measures a standalone cluster of two one-core workers against local[2], in one run.

    python -m jobs.benchmarks.etl.cluster --images DIR      1,000 images, at 512 and 256 pixels

DIR is as in throughput.py. Two drivers stay up, one for each master, and take turns after a first turn that is not
counted: so each ratio compares tables that were written within the same minute. All processes run on this machine and
share its disk. A turn goes from the manifest to the committed Delta table. Needs about 1 MB of disk per image.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command
from conf.settings import Etl, Quality
from etl.cluster.workers import SparkWorkers
from etl.writing.publish import publish
from jobs.benchmarks.etl.throughput import SIZES_PX, manifest_of, repeated

LOCAL = "local[2]"
BOTH_WORKERS = "--conf spark.cores.max=2 --conf spark.scheduler.minRegisteredResourcesRatio=1 pyspark-shell"
READY = "ready"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of PNGs")
    parser.add_argument("--num_images", type=int, default=1000, help="images of a turn (default 1000)")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each kind (default 5)")
    parser.add_argument("--master", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.master:
        drive(arguments)
        return
    seconds: dict[str, list[float]] = {}
    with running_cluster() as url, ExitStack() as stack:
        drivers = {name: stack.enter_context(started_driver(name)) for name in (LOCAL, url)}
        for turn in range(arguments.repetitions + 1):
            for name, driver in drivers.items():
                driver.stdin.write("\n")
                driver.stdin.flush()
                took = float(answer(driver))
                if turn:
                    seconds.setdefault("local" if name == LOCAL else "cluster", []).append(took)
    show(np.array(seconds["local"]), np.array(seconds["cluster"]), arguments.num_images)


@contextmanager
def running_cluster() -> Iterator[str]:
    """A master and two workers of one core each; yields the master's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, daemons = f"spark://127.0.0.1:{port}", []
    with tempfile.TemporaryDirectory(prefix="chexscale-") as folder:
        parts = [["master.Master", "--port", str(port)]]
        for number in (1, 2):
            work = ["--port", "0", "--cores", "1", "--memory", "2g", "--work-dir", f"{folder}/{number}"]
            parts.append(["worker.Worker", *work, url])
        try:
            for role, *words in parts:
                command = ["spark-class", f"org.apache.spark.deploy.{role}", "--host", "127.0.0.1", "--webui-port", "0"]
                daemons.append(
                    subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                )
            yield url
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait()


@contextmanager
def started_driver(master: str) -> Iterator[subprocess.Popen]:
    """A process that writes the table once for each line it gets, and prints the seconds that it took."""
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    if master != LOCAL:
        environment["PYSPARK_SUBMIT_ARGS"] = BOTH_WORKERS
    command = [sys.executable, "-m", "jobs.benchmarks.etl.cluster", *sys.argv[1:], "--master", master]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as driver:
        try:
            if answer(driver) != READY:
                raise InputError(f"the driver of {master} did not start; its message is above")
            yield driver
        finally:
            driver.stdin.close()


def answer(driver: subprocess.Popen) -> str:
    """The next line of a driver. Raises InputError if it has ended."""
    line = driver.stdout.readline()
    if not line:
        raise InputError(f"{' '.join(driver.args)} ended with exit code {driver.wait()}; its message is above")
    return line.strip()


def drive(arguments: argparse.Namespace) -> None:
    # The images are copies of each other, so duplicates must pass.
    settings = Etl(sizes_px=SIZES_PX, quality=Quality(duplicates=False, duplicates_across_patients=False))
    manifest = manifest_of(repeated(arguments.images, arguments.num_images), settings)
    with SparkWorkers(arguments.master) as workers:
        print(READY, flush=True)
        for _ in sys.stdin:
            with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
                table = os.path.abspath(folder)
                started = time.perf_counter()
                publish((f"{table}/shards", f"{table}/bad"), settings, "benchmark", manifest, workers)
                seconds = time.perf_counter() - started
            print(seconds, flush=True)


def show(local: np.ndarray, cluster: np.ndarray, num_images: int) -> None:
    ratios = local / cluster
    table = Table(
        "", "images/s", "seconds of a turn", caption=f"medians of {len(local)} turns, {num_images} images each"
    )
    for name, seconds in ((LOCAL, local), ("two workers of one core", cluster)):
        table.add_row(name, f"{num_images / np.median(seconds):.0f}", f"{np.median(seconds):.1f}")
    Console().print(table)
    low, high = ratios.min(), ratios.max()
    print(f"speed of the cluster, as a ratio to {LOCAL}: {np.median(ratios):.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    run_command(main)
