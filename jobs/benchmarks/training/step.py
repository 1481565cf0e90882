"""Measures what reading costs a training step: the real reader, tensors in memory and PNG files, as ratios of one run.

    python -m jobs.benchmarks.training.step                      resnet10_half at 96 pixels, the workspace runs/demo
    python -m jobs.benchmarks.training.step --model densenet121 --size_px 256 --images 200

The same Trainer runs whole epochs on the CPU, with augmentation, backward pass and AdamW. Only the source of its
batches differs: the training's reader, a list of the same batches, or torch's DataLoader over PNG files of the same
side. The three take turns, after an epoch of each that is not counted. Prints images/s, CPU time per image (of all
threads and processes), and the ratio of each to the training in memory.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from conf.errors import run_command
from conf.settings import Training
from conf.workspace import Workspace
from etl.contract.schema import image_column
from etl.contract.version import TableVersion
from jobs.benchmarks.training.fed import FedTrainer, alone
from jobs.benchmarks.training.repeated import repeat_table, write_pngs
from training.loop.loss import positive_weights
from training.loop.trainer import Trainer
from training.network.build import build_model
from training.ranks.collectives import Collectives
from training.ranks.memory import keep_freed_memory
from training.reading.batches import Batch, read_batches
from training.reading.plan import Plan
from training.reading.readers import open_split

OURS, MEMORY, PNG = "training's reader", "tensors in memory", "PNG files, DataLoader"


@dataclass(frozen=True)
class PngFiles(Dataset):
    """Reads one image per file, as torchvision's ImageFolder does, with the labels of the table."""

    paths: list[Path]
    labels: Tensor
    """(images, findings) float32"""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Tensor, Tensor]:
        with Image.open(self.paths[index]) as image:
            return self.paths[index].name, pil_to_tensor(image)[0], self.labels[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs/demo", help="workspace of a finished ETL (default runs/demo)")
    parser.add_argument("--model", default="resnet10_half", help="model, as in training.model (default resnet10_half)")
    parser.add_argument("--size_px", type=int, default=96, help="side of the images (default 96)")
    parser.add_argument("--batch_size", type=int, default=16, help="images per step (default 16)")
    parser.add_argument("--images", type=int, default=2_000, help="images of an epoch, at least (default 2,000)")
    parser.add_argument("--workers", type=int, default=1, help="workers of the DataLoader (default 1)")
    parser.add_argument("--repetitions", type=int, default=5, help="epochs with each source (default 5)")
    arguments = parser.parse_args()
    keep_freed_memory()
    newest = TableVersion.of(Workspace.at(arguments.workspace))
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        table = repeat_table(newest, arguments.images, f"{folder}/table")
        trainers = build_trainers(table, arguments, Path(folder, "png"))
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
        for repetition in range(arguments.repetitions + 1):
            for name, trainer in trainers.items():
                cost = train_epoch(trainer, repetition)
                if repetition:
                    costs[name].append(cost)
    show(costs)


def build_trainers(table: TableVersion, arguments: argparse.Namespace, folder: Path) -> dict[str, Trainer]:
    """Returns name -> trainer; each has its own model with the same weights."""
    card, column = table.card, image_column(arguments.size_px)
    plan = Plan.of(open_split(table, "train", arguments.size_px), arguments.batch_size, num_ranks=1)
    settings = Training(
        model=arguments.model,
        size_px=arguments.size_px,
        batch_size=arguments.batch_size,
        schedule="constant",
        precision="fp32",
    )
    ranks = Collectives(alone("cpu"))
    trainers: dict[str, Trainer] = {}
    for name in (OURS, MEMORY, PNG):
        torch.manual_seed(0)
        means = card.pixel_mean[column], card.pixel_std[column]
        model = build_model(
            settings.model, len(card.findings), *means, size_px=settings.size_px, channels=card.channels
        )
        kind = Trainer if name == OURS else FedTrainer
        trainers[name] = kind(model, settings, plan, positive_weights(card, settings.pos_weight_max), ranks)
    trainers[MEMORY].batches = [batch for batch, _ in trainers[OURS]._read(0, 0)]
    write_pngs(plan.split, folder)
    labels = torch.cat([batch.labels for batch in read_batches(plan.split, 64)])
    trainers[PNG].batches = DataLoader(
        PngFiles(sorted(folder.iterdir()), labels),
        batch_sampler=ShuffledBatches(plan.sizes_of(0)),
        num_workers=arguments.workers,
        collate_fn=to_batch,
    )
    return trainers


@dataclass(frozen=True)
class ShuffledBatches:
    """Yields indices in random order, in batches of the plan's sizes."""

    sizes: list[int]

    def __iter__(self) -> Iterator[list[int]]:
        yield from (part.tolist() for part in torch.randperm(sum(self.sizes)).split(self.sizes))

    def __len__(self) -> int:
        return len(self.sizes)


def to_batch(samples: list[tuple[str, Tensor, Tensor]]) -> Batch:
    names, pixels, labels = zip(*samples, strict=True)
    return Batch(np.array(names), torch.stack(pixels), torch.stack(labels), torch.empty(len(names), 0))


def train_epoch(trainer: Trainer, epoch: int) -> tuple[float, float]:
    """Trains one epoch; returns seconds per image, and CPU seconds per image of this process and its ended children."""
    started, cpu = time.perf_counter(), cpu_seconds()
    images = sum(trainer.train_epoch(epoch))
    return (time.perf_counter() - started) / images, (cpu_seconds() - cpu) / images


def cpu_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def show(costs: dict[str, list[tuple[float, float]]]) -> None:
    cores = len(os.sched_getaffinity(0))
    table = Table("batches from", "images/s", "to memory, median", "smallest", "largest", "CPU ms per image")
    for name, values in costs.items():
        ratios = [memory[0] / own[0] for memory, own in zip(costs[MEMORY], values, strict=True)]
        seconds, cpu = (statistics.median(parts) for parts in zip(*values, strict=True))
        shown = (statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(name, f"{1 / seconds:.0f}", *(f"{ratio:.3f}" for ratio in shown), f"{1000 * cpu:.2f}")
    table.caption = f"{cores} cores, medians of {len(next(iter(costs.values())))} epochs"
    Console().print(table)


if __name__ == "__main__":
    run_command(main)
