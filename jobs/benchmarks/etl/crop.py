"""Measures what etl.crop costs: images/s of the ETL with a crop over those without, from the manifest to the commit.

    python -m jobs.benchmarks.etl.crop --images DIR            600 images, at 512 and 256 pixels, in 5 turns

DIR holds 8-bit grey PNGs of 1024x1024 pixels, such as NIH's; copies of them under new names make up the number. Both
take turns in one Spark session, every other turn in reverse, after one that is not counted. Prints medians as JSON.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from conf.errors import run_command
from conf.settings import Etl, Quality
from etl.cluster.workers import SparkWorkers
from etl.contract.images.lungs.files import FINDER
from etl.contract.schema import Card
from etl.writing.publish import publish
from etl.writing.run import with_whole_path
from jobs.benchmarks.etl.throughput import SIZES_PX, manifest_of, repeated

# The images are copies of each other, so duplicates must pass.
WHOLE = Etl(sizes_px=SIZES_PX, quality=Quality(duplicates=False, duplicates_across_patients=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of PNGs")
    parser.add_argument("--lungs", default=FINDER, help="what finds the lungs, as etl.lungs (default finder)")
    parser.add_argument("--num_images", type=int, default=600, help="images per turn (default 600)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each way (default 5)")
    parser.add_argument(
        "--tasks", type=int, default=len(os.sched_getaffinity(0)), help="number of processes (default: one per core)"
    )
    arguments = parser.parse_args()
    ways = {"none": WHOLE, "lungs": with_whole_path(replace(WHOLE, crop="lungs", lungs=arguments.lungs))}
    paths = repeated(arguments.images, arguments.num_images)
    speeds: dict[str, list[tuple[float, float]]] = {crop: [] for crop in ways}
    cards: dict[str, Card] = {}
    with SparkWorkers(master=f"local[{arguments.tasks}]") as workers:
        for turn in range(arguments.turns + 1):
            for crop in list(ways)[:: -1 if turn % 2 else 1]:
                speed, cards[crop] = measure(paths, ways[crop], workers)
                speeds[crop].append(speed)
    counts = {"images": len(paths), "kept_whole": sum(cards["lungs"].kept_whole.values()), "turns": arguments.turns}
    print(json.dumps(counts | summary(speeds), indent=2))


def measure(paths: list[str], settings: Etl, workers: SparkWorkers) -> tuple[tuple[float, float], Card]:
    """Returns the images per second, the images per CPU second of all processes, and the card."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        manifest, started, cpu_before = manifest_of(paths, settings), time.perf_counter(), cpu_s()
        tables = f"{folder}/shards", f"{folder}/bad"
        outcome = publish(tables, settings, "benchmark", manifest, workers)
        seconds, cpu = time.perf_counter() - started, cpu_s() - cpu_before
    return (len(paths) / seconds, len(paths) / cpu), outcome.card


def cpu_s() -> float:
    """Returns the CPU seconds of this process and those below it, which other programs change little."""
    this = psutil.Process()
    times = []
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times.append(process.cpu_times())
    return sum(each.user + each.system for each in times)


def summary(speeds: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Returns the medians of both speeds and of their ratios, without the first turn."""
    whole, cropped = (np.array(of_way[1:]) for of_way in speeds.values())
    ratios = cropped / whole
    return {
        "whole_images_per_s": round(float(np.median(whole[:, 0])), 1),
        "cropped_images_per_s": round(float(np.median(cropped[:, 0])), 1),
        "ratio": round(float(np.median(ratios[:, 0])), 2),
        "ratio_per_cpu_s": round(float(np.median(ratios[:, 1])), 2),
        "ratios_per_cpu_s": ratios[:, 1].round(2).tolist(),
    }


if __name__ == "__main__":
    run_command(main)
