"""Measures ETL, reader and batch scoring on an object store behind a slow link, as ratios to those on a local disk.

    python -m jobs.benchmarks.stores.throughput --images DIR      400 images, 30 ms of round trip, 80 MB/s a connection

DIR holds PNGs of radiographs, such as NIH's; copies of them under new names make up the number. The server is versitygw
on this machine, the link a program in between (link.py). Prints images/s and ratios of one run. Spark's start, which is
the same in all, is not counted. The ratios per CPU second leave out server and link, which a real store has elsewhere.
Scoring has the smallest network and always writes its scores to the disk; its listing, which is counted, is also given
by itself.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from operator import truediv
from pathlib import Path

import psutil

from conf.errors import run_command
from conf.settings import Etl, Quality, Training
from etl.cluster.workers import SparkWorkers
from etl.contract.version import TableVersion
from etl.writing.publish import publish
from jobs.benchmarks.etl.throughput import SIZES_PX, find_pngs, manifest_of
from jobs.benchmarks.stores import link
from jobs.benchmarks.stores.link import PROGRAM, store
from jobs.benchmarks.stores.scoring import measure_scoring
from jobs.benchmarks.training.fed import alone
from jobs.benchmarks.training.reader import peak_mb
from training.reading.batches import join, read_steps
from training.reading.plan import Plan, Split
from training.reading.readers import open_split
from training.start.caching import cached

BATCH_SIZE, SIZE_PX = 16, 256
BUCKET = "s3://bench"
# Name of a table -> which of the ETL's runs made it.
PLACES = {"local": "local", "store": "both"}
TURNS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of PNGs")
    parser.add_argument("--num_images", type=int, default=400, help="images of the ETL (default 400)")
    parser.add_argument("--round_trip_ms", type=float, default=30, help="what the link adds to an answer (default 30)")
    parser.add_argument("--mb_per_s", type=float, default=80, help="rate of a connection (default 80)")
    parser.add_argument("--rows_per_row_group", type=int, default=50, help="rows of a row group (default 50)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        root = Path(folder).absolute()
        names = copy_films(arguments.images, arguments.num_images, root / "served" / "bench" / "films")
        with store(root / "served", arguments.round_trip_ms / 1000, arguments.mb_per_s * 1e6):
            results = measure(arguments, root, names)
    print(json.dumps({key: round(value, 2) for key, value in results.items()}, indent=2))


def copy_films(images: Path, number: int, target: Path) -> list[str]:
    """Puts copies of the PNGs into a bucket's folder; returns their names."""
    paths = find_pngs(images)
    target.mkdir(parents=True)
    names = [f"{index:06}.png" for index in range(number)]
    for index, name in enumerate(names):
        (target / name).write_bytes(paths[index % len(paths)].read_bytes())
    return names


def measure(arguments: argparse.Namespace, root: Path, names: list[str]) -> dict[str, float]:
    """Images/s of ETL and scoring and reader rows/s by where source and table lie, and their ratios to local ones."""
    local, stored = str(root / "served" / "bench" / "films"), f"{BUCKET}/films"
    settings = Etl(
        sizes_px=SIZES_PX,
        # The images are copies of each other, so duplicates must pass.
        quality=Quality(duplicates=False, duplicates_across_patients=False),
        rows_per_row_group=arguments.rows_per_row_group,
    )
    results, cards, cpu_s = {}, {}, {}
    with SparkWorkers(master=f"local[{len(os.sched_getaffinity(0))}]") as workers:
        for name, source, table in (
            # The first is not counted: it starts Spark's processes and imports what they need.
            ("warm", stored, f"{BUCKET}/warm"),
            ("local", local, str(root / "table")),
            ("source", stored, str(root / "table-2")),
            ("both", stored, f"{BUCKET}/table"),
        ):
            manifest = manifest_of([f"{source}/{film}" for film in names], settings)
            started, cpu_before = time.perf_counter(), cpu_s_of_product()
            card = publish((f"{table}/shards", f"{table}/bad"), settings, "benchmark", manifest, workers).card
            results[f"etl_{name}_images_per_s"] = len(names) / (time.perf_counter() - started)
            cpu_s[name] = cpu_s_of_product() - cpu_before
            cards[name] = table, card
        tables = {name: TableVersion(f"{cards[key][0]}/shards", cards[key][1]) for name, key in PLACES.items()}
        results |= measure_scoring({"local": local, "store": stored}, tables, SIZE_PX, workers, root)
    del results["etl_warm_images_per_s"]
    for name in ("source", "both"):
        results[f"etl_{name}_to_local"] = results[f"etl_{name}_images_per_s"] / results["etl_local_images_per_s"]
        results[f"etl_{name}_to_local_per_cpu_s"] = cpu_s["local"] / cpu_s[name]
    for name, table in tables.items():
        results[f"reader_{name}_rows_per_s"] = first_pass(table)
    results["reader_store_to_local"] = results["reader_store_rows_per_s"] / results["reader_local_rows_per_s"]
    for name, table in tables.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            before, peak = pool.submit(peak_mb, table, SIZE_PX).result()
        results[f"reader_{name}_mb"] = peak - before
    return results | later_passes(tables, root / "cache")


def cpu_s_of_product() -> float:
    """CPU seconds of this process and those below it, without the store's server and link."""
    this = psutil.Process()
    times = []
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            if not {PROGRAM, link.__name__} & {os.path.basename(word) for word in process.cmdline()}:
                times.append(process.cpu_times())
    return sum(each.user + each.system for each in times)


def first_pass(table: TableVersion) -> float:
    """Rows per second of a first pass over the training split, footers included."""
    started = time.perf_counter()
    split = open_split(table, "train", SIZE_PX)
    return read_all(split) / (time.perf_counter() - started)


def later_passes(tables: dict[str, TableVersion], cache: Path) -> dict[str, float]:
    """Rows per second of later passes, in turns: from the disk, from the store, and from the store with a cache."""
    splits = {name: open_split(table, "train", SIZE_PX) for name, table in tables.items()}
    splits["cached"] = cached([splits["store"]], Training(cache_dir=str(cache)), alone("cpu"))[0]
    speeds: dict[str, list[float]] = {name: [] for name in splits}
    for turn in range(TURNS + 1):
        for name, split in splits.items():
            started = time.perf_counter()
            rows = read_all(split, turn)
            # The first one fills the cache.
            if turn:
                speeds[name].append(rows / (time.perf_counter() - started))
    ratios = {f"later_{name}_to_local": map(truediv, speeds[name], speeds["local"]) for name in ("store", "cached")}
    later = {f"later_{name}_rows_per_s": values for name, values in speeds.items()}
    return {name: statistics.median(values) for name, values in (later | ratios).items()}


def read_all(split: Split, seed: int = 0) -> int:
    """Reads the split as a single rank does; returns its rows."""
    plan = Plan.of(split, BATCH_SIZE, num_ranks=1)
    return sum(len(join(batches).labels) for batches in read_steps(plan, 0, seed))


if __name__ == "__main__":
    run_command(main)
