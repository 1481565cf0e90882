"""Measures the ETL's speed against a plain loop without Spark and Godonou et al.'s method, as ratios of one run.

    python -m jobs.benchmarks.etl.throughput --images DIR      2,000 images, at 512 and 256 pixels

DIR holds 8-bit grey PNGs of 1024x1024 pixels, such as NIH's; copies of them under new names make up the number. Prints
images/s, ratios, bytes on disk and the memory of the workers. Needs about 0.4 MB of disk per image.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from conf.errors import InputError, run_command
from conf.settings import Etl, Quality
from etl.cluster.workers import SparkWorkers
from etl.contract.images.decode import decode_grey
from etl.contract.images.pixels import to_square
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.writing.publish import publish

SIZES_PX = [512, 256]
# Godonou et al.'s method is slow, so a few hundred images suffice to measure it.
NUM_PAST = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of PNGs")
    parser.add_argument("--num_images", type=int, default=2000, help="images to process (default 2000)")
    parser.add_argument(
        "--tasks", type=int, default=len(os.sched_getaffinity(0)), help="number of processes (default: one per core)"
    )
    arguments = parser.parse_args()
    paths = repeated(arguments.images, arguments.num_images)
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        results = {"images": len(paths), "tasks": arguments.tasks}
        results |= measure_spark(paths, arguments.tasks, f"{folder}/spark")
        results |= measure_plain(paths, arguments.tasks, f"{folder}/plain")
        results |= measure_past(paths[:NUM_PAST], arguments.tasks, f"{folder}/past")
    results["spark_to_plain"] = results["spark_images_per_s"] / results["plain_images_per_s"]
    results["spark_to_past"] = results["spark_images_per_s"] / results["past_images_per_s"]
    for kind in ("", "_plain"):
        past = results[f"past_bytes_per_image{kind}"]
        results[f"bytes_past{kind}_to_spark"] = past / results["spark_bytes_per_image"]
    print(json.dumps({key: round(value, 2) for key, value in results.items()}, indent=2))


def repeated(folder: Path, num_images: int) -> list[str]:
    """Returns num_images paths of the folder's PNGs, repeated as needed. Raises InputError if it has none."""
    paths = find_pngs(folder)
    return [str(paths[index % len(paths)]) for index in range(num_images)]


def find_pngs(folder: Path) -> list[Path]:
    """Returns the absolute paths of the folder's PNGs, sorted. Raises InputError if it has none."""
    paths = sorted(folder.absolute().glob("*.png"))
    if not paths:
        raise InputError(f"no PNG in {folder}: give a folder of PNGs with --images")
    return paths


def measure_spark(paths: list[str], tasks: int, folder: str) -> dict:
    """Measures from the manifest to the committed Delta table, in a session that is already running."""
    # The images are copies of each other, so duplicates must pass.
    quality = Quality(duplicates=False, duplicates_across_patients=False)
    settings = Etl(sizes_px=SIZES_PX, quality=quality)
    with SparkWorkers(master=f"local[{tasks}]") as workers:
        # Not timed: the first tasks of a session start its Python processes and import what they need.
        warm = manifest_of(paths[:100], settings)
        publish((f"{folder}-warm", f"{folder}-warm-bad"), settings, "benchmark", warm, workers)
        started = time.perf_counter()
        manifest = manifest_of(paths, settings)
        outcome = publish((f"{folder}/shards", f"{folder}/bad"), settings, "benchmark", manifest, workers)
        seconds = time.perf_counter() - started
    return {
        "spark_images_per_s": len(paths) / seconds,
        "spark_bytes_per_image": bytes_in(folder) / len(paths),
        "spark_worker_peak_mb": outcome.worker_peak_mb,
    }


def manifest_of(paths: list[str], settings: Etl) -> Manifest:
    """Makes a manifest with one patient per image and no finding present. settings: how the images are read."""
    names = pd.Series([f"{index:08}.png" for index in range(len(paths))])
    nothing = pd.Series("", names.index)
    rows = build_rows(
        Path("benchmark"),
        images=names,
        patients=names,
        follow_up=nothing,
        age=nothing,
        sex=nothing,
        view=nothing,
        findings=[np.zeros(14, np.float32)] * len(names),
    )
    rows["file"] = names
    rows["split"] = [("train", "train", "train", "val", "test")[index % 5] for index in names.index]
    files = pd.DataFrame({"path": paths, "file_version": "1", "clutter": None}, index=names)
    manifest = assemble(rows, files, [f"finding {index}" for index in range(14)], [], "images")
    named = manifest.images.assign(source="benchmark")
    return replace(manifest, images=named, sources={"benchmark": settings})


def measure_plain(paths: list[str], tasks: int, folder: str) -> dict:
    """Measures the same decoding, resizing and Parquet in a plain loop per process, without checks or commits."""
    seconds = time_processes(write_plain, paths, tasks, folder)
    return {"plain_images_per_s": len(paths) / seconds, "plain_bytes_per_image": bytes_in(folder) / len(paths)}


def write_plain(folder: str, paths: list[str]) -> None:
    schema = pa.schema([("path", pa.string()), *((f"image_{size}", pa.binary()) for size in SIZES_PX)])
    name = f"{folder}/{os.getpid()}-{time.time_ns()}.parquet"
    with pq.ParquetWriter(name, schema, compression="none", use_dictionary=False, write_statistics=False) as writer:
        for start in range(0, len(paths), 128):
            columns = {name: [] for name in schema.names}
            for path in paths[start : start + 128]:
                image = decode_grey(Path(path).read_bytes())
                columns["path"].append(path)
                for size in SIZES_PX:
                    columns[f"image_{size}"].append(to_square(image, size).tobytes())
            writer.write_table(pa.table(columns, schema))


def measure_past(paths: list[str], tasks: int, folder: str) -> dict:
    """Measures the method of Godonou et al.: torchvision resizes and normalises, and the floats go to Parquet as lists.

    Parquet compresses the repetitions in these floats, so the result also has their size as plain float64.
    """
    seconds = time_processes(write_past, paths, tasks, folder)
    return {
        "past_images_per_s": len(paths) / seconds,
        "past_bytes_per_image": bytes_in(folder) / len(paths),
        "past_bytes_per_image_plain": sum(3 * 8 * size**2 for size in SIZES_PX),
    }


def write_past(folder: str, paths: list[str]) -> None:
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(1)
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    ways = {s: transforms.Compose([transforms.Resize((s, s)), transforms.ToTensor(), normalise]) for s in SIZES_PX}
    rows = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        rows.append({f"image_{size}": way(image).flatten().tolist() for size, way in ways.items()})
        if len(rows) == 16 or path is paths[-1]:
            pq.write_table(pa.Table.from_pylist(rows), f"{folder}/{os.getpid()}-{time.time_ns()}.parquet")
            rows = []


def time_processes(write, paths: list[str], tasks: int, folder: str) -> float:
    """Returns the seconds that `tasks` processes take for their shares once they have started."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with ProcessPoolExecutor(tasks) as pool:
        list(pool.map(partial(write, folder), [paths[:8]] * tasks))
        shutil.rmtree(folder)
        os.makedirs(folder)
        started = time.perf_counter()
        list(pool.map(partial(write, folder), [paths[index::tasks] for index in range(tasks)]))
        return time.perf_counter() - started


def bytes_in(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))


if __name__ == "__main__":
    run_command(main)
