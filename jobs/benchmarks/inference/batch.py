"""Measures how fast Spark scores, against a plain OpenVINO loop of as many single-threaded processes, in one run.

    python -m jobs.benchmarks.inference.batch   20,000 rows of runs/demo's table, its 2,000 phantoms
    python -m jobs.benchmarks.inference.batch --mode fp32 --turns 9

The table repeats the workspace's training split. In the loop, each process has a share of the row groups, asks the
model in batches and discards the answers. The loop is timed twice: with the pixels in memory, which measures the model
alone, and reading them as Spark's workers do. Spark's time is from the listed images to the committed scores, in a
running session. Below the ratios is the time of the whole command, from its first line to its last. Other programs on
the machine change the images per second, but hardly the images per second of CPU, which counts all processes.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from conf.errors import run_command
from conf.workspace import Workspace
from etl.cluster.workers import SparkWorkers
from etl.contract.schema import image_column
from etl.contract.storage import locate
from etl.contract.version import TableVersion
from inference.batch.listing import Listing, list_folder, list_table
from inference.batch.run import score_new
from inference.film.films import load_film
from inference.model.inputs import without_films
from inference.model.model_files import find_model
from inference.model.properties import Properties
from inference.model.served_model import ServedModel, open_served
from inference.model.variants import open_variant
from jobs.benchmarks.training.repeated import repeat_table

BATCH_SIZE = 16
SPARK, MEMORY, READING = "Spark", "plain loop, pixels in memory", "plain loop, reading"


class TurnSpeed(NamedTuple):
    """The speed of one method in one turn."""

    per_s: float
    """images per second"""
    per_cpu_s: float
    """images per second of CPU"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs/demo", help="workspace with a champion (default runs/demo)")
    parser.add_argument("--mode", default="int8", help="precision of the graph (default int8)")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the table, about (default 20,000)")
    parser.add_argument("--files", type=int, default=2000, help="images of the folder, at most (default 2,000)")
    parser.add_argument("--images", type=Path, help="folder of image files (default: the workspace's phantoms)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each method (default 5)")
    parser.add_argument(
        "--tasks", type=int, default=len(os.sched_getaffinity(0)), help="number of processes (default: one per core)"
    )
    arguments = parser.parse_args()
    workspace = Workspace.at(arguments.workspace)
    model = open_served(find_model(workspace, "chexscale"), arguments.mode, num_threads=1)
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        table = list_table(repeat_workspace(workspace, arguments.rows, Path(folder, "table")), model.properties)
        files = list_folder(locate(str(arguments.images or workspace.phantoms / "images")))
        files = Listing(files.source, None, files.images.slice(0, arguments.files))
        with SparkWorkers(master=f"local[{arguments.tasks}]") as workers:
            for title, listing in (("images of a table", table), ("image files", files)):
                speeds = measure(model, listing, workers, arguments.turns, arguments.tasks, folder)
                show(f"{len(listing.images):,} {title}, {arguments.tasks} processes", speeds)
        show_command(workspace, folder, arguments.mode, len(table.images))


def repeat_workspace(workspace: Workspace, num_rows: int, folder: Path) -> Workspace:
    """Makes a workspace with a larger table of the same images."""
    repeated = repeat_table(TableVersion.of(workspace), num_rows, str(folder / "shards"))
    repeated.card.write(folder / "card.json")
    return Workspace.at(str(folder))


def measure(
    model: ServedModel, listing: Listing, workers: SparkWorkers, turns: int, tasks: int, folder: str
) -> dict[str, list[TurnSpeed]]:
    """Returns each method's speed in each turn; a first turn of Spark, in which its workers start, is not counted."""
    speeds: dict[str, list[TurnSpeed]] = {SPARK: [], MEMORY: [], READING: []}
    score_with_spark(model, listing, workers, f"{folder}/warm-{len(listing.images)}")
    for turn in range(turns):
        speeds[SPARK].append(score_with_spark(model, listing, workers, f"{folder}/{turn}-{len(listing.images)}"))
        speeds[MEMORY].append(loop_in_processes(model, listing.images, tasks, in_memory=True))
        speeds[READING].append(loop_in_processes(model, listing.images, tasks, in_memory=False))
    return speeds


def score_with_spark(model: ServedModel, listing: Listing, workers: SparkWorkers, output: str) -> TurnSpeed:
    started, cpu_before = time.perf_counter(), cpu_s_of_all()
    outcome = score_new(model, listing, os.path.abspath(output), BATCH_SIZE, workers.map_in_arrow)
    seconds, cpu_s = time.perf_counter() - started, cpu_s_of_all() - cpu_before
    assert len(outcome.rows) == len(listing.images)
    return TurnSpeed(len(outcome.rows) / seconds, len(outcome.rows) / cpu_s)


def cpu_s_of_all() -> float:
    """Returns the CPU seconds of this process and those below it, which include Java and the workers."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def loop_in_processes(model: ServedModel, images: pa.Table, tasks: int, in_memory: bool) -> TurnSpeed:
    """Returns the speed of `tasks` processes together; the time is that of the slowest."""
    context = multiprocessing.get_context("spawn")
    bounds = [len(images) * task // tasks for task in range(tasks + 1)]
    shares = [images.slice(start, end - start) for start, end in itertools.pairwise(bounds)]
    loop = partial(loop_plainly, mode=model.mode, folder=model.folder / model.mode, in_memory=in_memory)
    with ProcessPoolExecutor(tasks, context, keep_barrier, (context.Barrier(tasks),)) as pool:
        seconds, cpu_s = zip(*pool.map(loop, shares), strict=True)
        return TurnSpeed(len(images) / max(seconds), len(images) / sum(cpu_s))


def keep_barrier(barrier) -> None:
    global at_the_start
    at_the_start = barrier


def loop_plainly(images: pa.Table, mode: str, folder: Path, in_memory: bool) -> tuple[float, float]:
    """Returns seconds and CPU seconds of a plain loop over these images; it starts in all processes at once."""
    predict, properties = open_variant(mode, folder, num_threads=1)
    predict(*without_films(properties, BATCH_SIZE))
    batches = batches_of(images, properties)
    if in_memory:
        batches = list(batches)
    at_the_start.wait()
    started, cpu_before = time.perf_counter(), time.process_time()
    for batch in batches:
        predict(batch)
    return time.perf_counter() - started, time.process_time() - cpu_before


def batches_of(images: pa.Table, properties: Properties) -> Iterator[np.ndarray]:
    """Yields (BATCH_SIZE, S, S) uint8 with as little work as possible."""
    side = properties.size_px
    if images["row_group"].null_count:
        paths = images["file"].to_pylist()
        for start in range(0, len(paths), BATCH_SIZE):
            films = [load_film(Path(path).read_bytes(), properties) for path in paths[start : start + BATCH_SIZE]]
            yield np.stack([film.pixels for film in films])
        return
    places = images.group_by(["file", "row_group"], use_threads=False).aggregate([("row", "min"), ("row", "max")])
    for place in places.to_pylist():
        cells = pq.ParquetFile(place["file"]).read_row_group(place["row_group"], [image_column(side)]).column(0)
        # All rows have the same number of bytes, so the column's buffer is the images.
        array = cells.combine_chunks()
        pixels = np.frombuffer(array.buffers()[2], np.uint8, len(array) * side**2, array.offset * side**2)
        pixels = pixels.reshape(-1, side, side)[place["row_min"] : place["row_max"] + 1]
        for start in range(0, len(pixels), BATCH_SIZE):
            yield pixels[start : start + BATCH_SIZE]


def show(title: str, speeds: dict[str, list[TurnSpeed]]) -> None:
    table = Table("", "images/s", "Spark / this", "images/CPU s", "Spark / this", title=title)
    table.caption = "medians, with the smallest and the largest in brackets"
    for name, turns in speeds.items():
        cells = []
        for field in range(len(TurnSpeed._fields)):
            values = [turn[field] for turn in turns]
            ratios = [spark[field] / value for spark, value in zip(speeds[SPARK], values, strict=True)]
            cells.append(f"{statistics.median(values):,.0f}")
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        table.add_row(name, *cells)
    Console(width=110).print(table)


def show_command(workspace: Workspace, folder: str, mode: str, num_rows: int) -> None:
    """Times the command as it is typed, including everything that it starts."""
    command = ["spark-submit", "inference/predict.py", "--workspace", str(workspace.root), "--scoring.mode", mode]
    command += ["--scoring.source", f"{folder}/table", "--scoring.output", f"{folder}/command"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    print(f"the whole command on the table: {seconds:.1f} s, {num_rows / seconds:,.0f} images/s")


if __name__ == "__main__":
    run_command(main)
