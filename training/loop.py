"""The loop, read from top to bottom: an epoch of steps, a validation, the best checkpoint kept."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from conf.settings import Training
from training.augment import augment
from training.loss import masked_bce
from training.readers import Split, read_batches
from training.topology import Collectives

# Images per step of a validation, where nothing is kept for gradients.
EVALUATION_BATCH_SIZE = 64


@dataclass(frozen=True)
class Predictions:
    """What a model says about a split; rows in the order of the ranks."""

    labels: np.ndarray
    """(images, findings) float32: 1, 0, NaN unknown"""
    logits: np.ndarray
    """(images, findings) float32"""


@dataclass(frozen=True)
class EpochResult:
    losses: list[float]
    """per step, mean over the ranks"""
    images_per_s: float
    """of the whole world, reading included"""
    waiting_fraction: float
    """share of the time in which rank 0 waited for data, 0..1"""


class Trainer:
    """Everything that lives as long as the training: model, optimizer, schedule, random numbers."""

    def __init__(
        self, model: nn.Module, settings: Training, split: Split, pos_weight: torch.Tensor, ranks: Collectives
    ):
        """model: on the CPU, the same on every rank or not: rank 0's weights count. split: the training split."""
        topology = ranks.topology
        self.settings, self.split, self.ranks = settings, split, ranks
        self.device = topology.torch_device
        self.pos_weight = pos_weight.to(self.device)
        self.model = model.to(self.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.stepped_model, self.optimizer = ranks.distribute(self.model, optimizer)
        self.sizes = [
            split.batch_sizes(rank, topology.world_size, settings.batch_size) for rank in range(topology.world_size)
        ]
        self.steps_per_epoch = len(self.sizes[0])
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=settings.learning_rate, total_steps=self.steps_per_epoch * settings.epochs
        )
        self.augmentation = torch.Generator().manual_seed(settings.seed * 1_000_003 + topology.rank)

    def train_epoch(self, epoch: int, bar: tqdm) -> EpochResult:
        """One pass over the training split. epoch: from 0; seeds the order of the row groups."""
        topology = self.ranks.topology
        self.model.train()
        losses, waited, started = [], 0.0, time.perf_counter()
        seed = self.settings.seed + epoch
        batches = read_batches(self.split, self.settings.batch_size, topology.rank, topology.world_size, seed)
        for step in range(self.steps_per_epoch):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            pixels, labels = batch.pixels.to(self.device), batch.labels.to(self.device)
            loss = masked_bce(self.stepped_model(augment(pixels, self.augmentation)), labels, self.pos_weight)
            # Gradients are averaged over the ranks: a rank with fewer images must count less.
            share = len(labels) * topology.world_size / sum(sizes[step] for sizes in self.sizes)
            self.optimizer.zero_grad()
            (loss * share).backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item() * share)
            if not math.isfinite(losses[-1]):
                raise RuntimeError(
                    f"the loss is {losses[-1]} in epoch {epoch + 1}, step {step + 1}: images {list(batch.image_ids)}"
                )
            bar.update(sum(sizes[step] for sizes in self.sizes))
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        # Runs the reader to its end, where it proves that no row was lost.
        assert next(batches, None) is None, "the reader has more batches than the plan"
        seconds = time.perf_counter() - started
        mean_losses = np.mean(self.ranks.gather(losses), axis=0).tolist()
        return EpochResult(mean_losses, self.split.rows / seconds, waited / seconds)

    def predict(self, split: Split) -> Predictions:
        """Logits of every image of a split, each once, on every rank.

        BatchNorm's statistics are first averaged over the ranks, so that all evaluate the same model.
        """
        self.ranks.average_buffers(self.model)
        self.model.eval()
        topology = self.ranks.topology
        labels, logits = [], []
        with torch.inference_mode():
            for batch in read_batches(split, EVALUATION_BATCH_SIZE, topology.rank, topology.world_size):
                labels.append(batch.labels.numpy())
                logits.append(self.model(batch.pixels.to(self.device)).cpu().numpy())
        parts = [part for part in self.ranks.gather((labels, logits)) if part[0]]
        joined = [np.concatenate([array for part in parts for array in part[field]]) for field in range(2)]
        assert len(joined[0]) == split.rows, f"{len(joined[0])} predictions for {split.rows} images"
        return Predictions(*joined)
