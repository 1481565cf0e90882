"""What benchmarks of the step alone share: the product's trainer without its reader, random images, and their rank."""

import json
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from etl.contract.schema import NIH_FINDINGS
from training.loop.trainer import Trainer
from training.ranks.topology import Topology
from training.reading.batches import Batch

NUM_FINDINGS = len(NIH_FINDINGS)
MARK = "MEASURED "


class FedTrainer(Trainer):
    """A Trainer that takes its batches from `batches`, once through in each epoch."""

    batches: Iterable[Batch]

    def _read(self, epoch: int, start: int) -> Iterator[tuple[Batch, list[int]]]:
        yield from ((batch, [len(batch.labels)]) for batch in self.batches)


def alone(device: str) -> Topology:
    """A single process without a launcher, also if a launcher started this one."""
    return Topology("none", 0, 1, 0, 1, device)


def random_batch(num_images: int, size_px: int) -> Batch:
    """Noise and random labels: the content of an image does not change the time of a step."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (num_images, size_px, size_px), dtype=torch.uint8, generator=generator)
    labels = torch.randint(2, (num_images, NUM_FINDINGS), generator=generator).float()
    return Batch(np.arange(num_images).astype(str), pixels, labels, torch.empty(num_images, 0))


def print_measured(values: dict) -> None:
    """Prints what a launched rank measured, for `measured` in the process that started its launcher."""
    print(f"\n{MARK}{json.dumps(values)}", flush=True)


def measured(output: str) -> dict | None:
    """What a rank measured, from its launcher's output, in which a prefix may stand before it; None without it."""
    found = [line.partition(MARK)[2] for line in output.splitlines() if MARK in line]
    return json.loads(found[0]) if found else None
