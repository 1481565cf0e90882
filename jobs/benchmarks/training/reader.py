"""Measures the speed and memory of training's reader against plain pyarrow, MosaicML Streaming and PNG files.

    python -m jobs.benchmarks.training.reader --workspace DIR   the workspace of a finished ETL (default runs/demo)

Every reader gives the same images at 256 pixels, shuffled, in torch tensors of 16, and nothing is computed with them.
The readers take turns in one run, so that what slows the machine slows them all. DataLoaders keep their workers from
one pass to the next, while the training's reader starts anew. Prints two tables: images/s, and the peak memory of fresh
processes that read tables of two sizes. Needs 0.1 MB of disk per row. MosaicML Streaming is measured only if its
package is installed. Not all of its dependencies fit this environment, so install it like this:

    pip install --target /tmp/mds --no-deps mosaicml-streaming==0.13.0 transformers==4.57.6 tokenizers==0.22.2 \\
        'huggingface-hub<1' safetensors regex catalogue zstd Brotli python-snappy cramjam xxhash
    PYTHONPATH=/tmp/mds python -m jobs.benchmarks.training.reader
"""

import argparse
import importlib.util
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import PILToTensor

from conf.errors import run_command
from conf.workspace import Workspace
from etl.contract.schema import image_column
from etl.contract.version import TableVersion
from jobs.benchmarks.training.repeated import repeat_table, write_pngs
from training.reading.batches import join, read_batches, read_steps
from training.reading.plan import Plan, Split
from training.reading.prefetch import prefetch
from training.reading.readers import open_split

BATCH_SIZE = 16
OURS = "training's reader"
MEMORY_ROWS = (2_000, 20_000)
NUM_WORKERS = (0, 1, 2)

Pass = Callable[[int], Iterable[int]]
"""one pass in the order of a seed, giving the number of images in each batch"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs/demo", help="workspace of a finished ETL (default runs/demo)")
    parser.add_argument("--size_px", type=int, default=256, help="stored side that is read (default 256)")
    parser.add_argument("--rows", type=int, default=10_000, help="rows of a pass, about (default 10,000)")
    parser.add_argument("--repetitions", type=int, default=5, help="passes of each reader (default 5)")
    arguments = parser.parse_args()
    # Every reader makes its tensors with the same number of threads.
    torch.set_num_threads(1)
    table = TableVersion.of(Workspace.at(arguments.workspace))
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        split = open_split(repeat_table(table, arguments.rows, f"{folder}/table"), "train", arguments.size_px)
        write_pngs(split, Path(folder, "png", "images"))
        show_speeds(measure(readers(split, folder), split.rows, arguments.repetitions))
        show_memory([(rows, repeat_table(table, rows, f"{folder}/{rows}")) for rows in MEMORY_ROWS], split)


def readers(split: Split, folder: str) -> dict[str, Pass]:
    """Returns name -> reader; if MosaicML's package is absent, says so and leaves its readers out."""
    plan = Plan.of(split, BATCH_SIZE, num_ranks=1)
    passes: dict[str, Pass] = {
        OURS: lambda seed: (len(join(batches).labels) for batches in read_steps(plan, 0, seed)),
        "plain pyarrow loop": partial(read_plain, split),
    }
    if importlib.util.find_spec("streaming"):
        passes |= streaming_readers(split, f"{folder}/mds")
    else:
        print("MosaicML Streaming is not installed, so its rows are LEFT OUT: --help says how to install it")
    for workers in NUM_WORKERS:
        # Keeps the images grey; ImageFolder's own loader would make them RGB.
        dataset = ImageFolder(f"{folder}/png", transform=PILToTensor(), loader=Image.open)
        loader = DataLoader(dataset, BATCH_SIZE, True, num_workers=workers, persistent_workers=workers > 0)
        passes[f"ImageFolder of PNGs, {workers} workers"] = partial(read_loader, loader)
    return passes


def read_plain(split: Split, seed: int) -> Iterator[int]:
    """Reads with as little work as possible: one thread reads row groups, the caller's thread makes the tensors."""
    rng, column = np.random.default_rng(seed), image_column(split.size_px)
    files = [pq.ParquetFile(file) for file in split.files]
    places = [(file, index) for file in files for index in range(file.num_row_groups)]
    columns = ["image_id", "findings.list.element", column]
    tables = (places[at][0].read_row_group(places[at][1], columns) for at in rng.permutation(len(places)))
    image_ids, pixels, labels = np.empty(0, object), None, None
    for table in prefetch(tables):
        order = torch.from_numpy(rng.permutation(len(table)))
        # All rows have the same number of bytes, so the column's buffer is the tensor.
        (array,) = table[column].chunks
        grey = torch.frombuffer(array.buffers()[2], dtype=torch.uint8, offset=array.offset * split.size_px**2)
        new_pixels = grey[: len(table) * split.size_px**2].view(-1, split.size_px, split.size_px)[order]
        values = table["findings"].combine_chunks().flatten().to_numpy()
        new_labels = torch.tensor(values.reshape(len(table), -1))[order]
        image_ids = np.concatenate([image_ids, table["image_id"].to_numpy()[order]])
        pixels = new_pixels if pixels is None else torch.cat([pixels, new_pixels])
        labels = new_labels if labels is None else torch.cat([labels, new_labels])
        while len(labels) >= BATCH_SIZE:
            yield len(labels[:BATCH_SIZE])
            image_ids, pixels, labels = image_ids[BATCH_SIZE:], pixels[BATCH_SIZE:], labels[BATCH_SIZE:]
    yield len(labels)


def streaming_readers(split: Split, folder: str) -> dict[str, Pass]:
    """Writes the same raw bytes in MosaicML's own format, and reads them with its own dataset."""
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=folder, columns={"image_id": "str", "pixels": "bytes", "labels": "ndarray"}) as writer:
        for batch in read_batches(split, BATCH_SIZE):
            for name, pixels, labels in zip(batch.image_ids, batch.pixels, batch.labels, strict=True):
                writer.write({"image_id": name, "pixels": pixels.numpy().tobytes(), "labels": labels.numpy()})

    def stack(samples: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.frombuffer(bytearray(b"".join(sample["pixels"] for sample in samples)), dtype=torch.uint8)
        labels = torch.from_numpy(np.stack([sample["labels"] for sample in samples]))
        return pixels.view(-1, split.size_px, split.size_px), labels

    passes = {}
    for workers in NUM_WORKERS:
        dataset = StreamingDataset(local=folder, shuffle=True, batch_size=BATCH_SIZE)
        options = {"num_workers": workers, "persistent_workers": workers > 0, "collate_fn": stack}
        passes[f"MosaicML Streaming, {workers} workers"] = partial(
            read_loader, DataLoader(dataset, BATCH_SIZE, **options)
        )
    return passes


def read_loader(loader: DataLoader, seed: int) -> Iterator[int]:
    torch.manual_seed(seed)
    yield from (len(labels) for _, labels in loader)


def measure(passes: dict[str, Pass], rows: int, repetitions: int) -> dict[str, list[float]]:
    """Returns images/s of each repetition of each reader, in turns; a first pass of each is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in passes}
    for repetition in range(repetitions + 1):
        for name, read in passes.items():
            started = time.perf_counter()
            seen = sum(read(repetition))
            if repetition:
                speeds[name].append(seen / (time.perf_counter() - started))
            assert seen == rows, f"{name} gave {seen} of {rows} images"
    return speeds


def show_speeds(speeds: dict[str, list[float]]) -> None:
    table = Table(
        "reader", "images/s", "ours / this", "smallest", "largest", caption="medians; ours: training's reader"
    )
    for name, values in speeds.items():
        ratios = [ours / theirs for ours, theirs in zip(speeds[OURS], values, strict=True)]
        shown = (statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(name, f"{statistics.median(values):,.0f}", *(f"{ratio:.2f}" for ratio in shown))
    Console().print(table)


def show_memory(tables: list[tuple[int, TableVersion]], split: Split) -> None:
    shown = Table("rows (about)", "MB after the imports", "peak MB of a pass")
    for rows, table in tables:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            before, peak = pool.submit(peak_mb, table, split.size_px).result()
        shown.add_row(f"{rows:,}", f"{before:.0f}", f"{peak:.0f}")
    Console().print(shown)


def peak_mb(table: TableVersion, size_px: int) -> tuple[float, float]:
    """Returns this process's memory before a pass, and its peak during one that reads as a rank does."""
    before = resident_peak_mb()
    plan = Plan.of(open_split(table, "train", size_px), BATCH_SIZE, num_ranks=1)
    for batches in prefetch(read_steps(plan, 0, shuffle_seed=0)):
        join(batches)
    return before, resident_peak_mb()


def resident_peak_mb() -> float:
    # Not getrusage, which gives the parent process's peak if that is larger.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    run_command(main)
