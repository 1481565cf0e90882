"""The training loop, to be read from top to bottom: the steps of an epoch, and a validation."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from conf.errors import InputError
from conf.settings import Training
from training.loop.loss import check_classes, cross_entropy, log_odds, masked_bce
from training.loop.places import place_loss, region_loss
from training.loop.schedule import Schedule, build_optimizer, peak_learning_rate
from training.loop.seeds import AUGMENTATION, DROPOUT, ORDER, random_state
from training.loop.shortage import explained, training_step, validation
from training.measures.predictions import Predictions
from training.network.checkpoint import State
from training.network.layers import learning_rate_shares
from training.network.models import XrayClassifier
from training.ranks.collectives import Collectives
from training.reading.augment import augment, draw_changes, origins
from training.reading.batches import Batch, join, read_batches, read_steps
from training.reading.plan import Plan, Split
from training.reading.prefetch import prefetch

# Images per step of a validation, which keeps nothing for gradients.
EVALUATION_BATCH_SIZE = 64
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class EpochResult:
    losses: list[float]
    """loss of each step, over the images of all ranks"""
    images_per_s: float
    """throughput of all ranks together, reading included"""
    waiting_fraction: float
    """share of the time that rank 0 waited for data, 0..1"""


class Trainer:
    """Everything that lives as long as a stage of the training: model, optimizer, schedule.

    Random numbers do not: each step draws its own from the seed, the epoch, the step and the stream. They are therefore
    the same after a resume, and those of the augmentation also on any number of ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Training,
        plan: Plan,
        pos_weight: Tensor,
        ranks: Collectives,
        *,
        frozen: Sequence[nn.Module] = (),
        grid: tuple[float, float] | None = None,
    ):
        """Moves the model to this rank's device and gives it an optimizer and a schedule.

        model: on the CPU, with the same weights on every rank or not, because those of rank 0 count. It must be fresh:
        the gradient hooks that a Trainer registers on it cannot be removed. settings: with a settled precision, see
        settle_precision. plan: the training split's. pos_weight: (findings,), as for masked_bce. frozen: parts of the
        model that keep their weights and their statistics. grid: where the cells of the model's maps lie, see
        measure_map_grid; only with training.box_weight or lung_weight.
        """
        self.settings, self.plan, self.ranks, self.frozen = settings, plan, ranks, frozen
        for part in frozen:
            part.requires_grad_(False)
        self.exclusive = settings.exclusive
        self.rank, self.device = ranks.topology.rank, ranks.topology.torch_device
        self.pos_weight = pos_weight.to(self.device)
        self.model = (ranks.share_batchnorm(model) if settings.sync_batchnorm else model).to(self.device)
        wanted = settings.box_weight or settings.lung_weight
        assert (grid is None) == (not wanted), "a loss on places and a grid of the maps go together"
        self.grid = grid
        rate = peak_learning_rate(settings, plan.batch_size * plan.num_ranks)
        optimizer = build_optimizer(_by_rate(self.model, settings, rate), settings, rate)
        self.distributed_model, self.optimizer = ranks.distribute(self.model, optimizer, settings.accumulation)
        self.schedule = Schedule(self.optimizer, settings, plan.steps)
        self.dtype = PRECISIONS[settings.precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.stepped_model = ranks.compiled(self.distributed_model) if settings.compile else self.distributed_model
        self.losses: list[float] = []
        # The loss of a step is fetched while the next one is computed.
        self._pending: tuple[Tensor, Batch, str] | None = None

    def train_epoch(self, epoch: int, start: int = 0) -> Iterator[int]:
        """Trains for one pass over the training split, from step `start` on.

        Yields after each step its number of images, over all ranks. epoch: counted from 0. Afterwards `result` holds
        the epoch's result. Raises InputError if a loss is not finite, or if a step needs too much memory.
        """
        self.model.train()
        if self.settings.freeze_batchnorm:
            for layer in self.model.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        for part in self.frozen:
            part.eval()
        waited, started = 0.0, time.perf_counter()
        sizes = self.plan.global_sizes
        with closing(prefetch(self._read(epoch, start))) as steps:
            for step in range(start, self.plan.steps):
                asked = time.perf_counter()
                with explained(self.device, *training_step(self.settings, self.plan.batch_size)):
                    batch, images_per_stream = next(steps)
                    waited += time.perf_counter() - asked
                    loss = self._step(batch, images_per_stream, epoch, step, sizes[step])
                    self._fetch_loss()
                self._pending = (loss, batch, f"epoch {epoch + 1}, step {step + 1}")
                yield sizes[step]
            # Runs the reader to its end, where it checks that no row was lost.
            if next(steps, None) is not None:
                raise RuntimeError("the reader has more batches than the plan")
        losses = self.mean_losses()
        seconds = time.perf_counter() - started
        self.losses = []
        self.result = EpochResult(losses, sum(sizes[start:]) / seconds, waited / seconds)

    def after_validation(self, predictions: Predictions) -> None:
        """Gives the schedule the validation loss, which is the same on every rank.

        Raises InputError if a logit is not finite.
        """
        logits, labels = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)
        strange = int((~logits.isfinite()).any(dim=1).sum())
        if strange:
            raise InputError(
                f"the model's logits of {strange} of {len(logits)} validation images are not finite: lower "
                "training.learning_rate, or set training.clip_norm"
            )
        if self.exclusive:
            # The logsigmoid of log-odds is the logarithm of the class's probability.
            self.val_loss = -(labels * nn.functional.logsigmoid(logits)).sum().item() / len(labels)
        else:
            self.val_loss = masked_bce(logits, labels, self.pos_weight.cpu(), labels.numel()).item()
        self.schedule.after_epoch(self.val_loss)

    def predict(self, split: Split) -> Predictions:
        """Predicts every image of a split once; every rank gets the logits of all images.

        BatchNorm's statistics are first averaged over the ranks, so that all evaluate the same model. Raises InputError
        if there is too little memory.
        """
        self.ranks.average_statistics(self.model)
        self.model.eval()
        topology = self.ranks.topology
        parts: list[tuple[np.ndarray, ...]] = []
        with explained(self.device, *validation(self.settings, EVALUATION_BATCH_SIZE)), torch.inference_mode():
            for batch in read_batches(split, EVALUATION_BATCH_SIZE, topology.rank, topology.world_size):
                if self.exclusive:
                    check_classes(batch.labels, batch.image_ids)
                pixels, attributes = batch.pixels.to(self.device), batch.attributes.to(self.device)
                logits = self.model(*inputs(pixels, attributes)).cpu()
                logits = log_odds(logits) if self.exclusive else logits
                parts.append((batch.image_ids, batch.labels.numpy(), logits.numpy()))
        everything = [part for parts_of_rank in self.ranks.gather(parts) for part in parts_of_rank]
        joined = Predictions(*map(np.concatenate, zip(*everything, strict=True)))
        assert len(joined.labels) == split.rows, f"{len(joined.labels)} predictions for {split.rows} images"
        return joined

    def state(self) -> dict:
        """The trainer's part of a State. Every rank must call this, between two steps or after a validation."""
        return {
            "losses": self.mean_losses(),
            "weights": self.model.state_dict(),
            "buffers": self.ranks.gather({name: buffer.cpu() for name, buffer in self.model.named_buffers()}),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: State) -> None:
        """Resumes from a state: bit for bit on as many ranks as before, otherwise from the mean of their buffers."""
        if len(state.buffers) == self.plan.num_ranks:
            buffers = state.buffers[self.rank]
        else:
            stacked = {name: torch.stack([rank[name] for rank in state.buffers]) for name in state.buffers[0]}
            buffers = {n: every.mean(0) if every.is_floating_point() else every[0] for n, every in stacked.items()}
        self.model.load_state_dict({**state.weights, **buffers})
        self.optimizer.load_state_dict(state.optimizer)
        self.schedule.load_state_dict(state.schedule)
        self.scaler.load_state_dict(state.scaler)
        self.losses = list(state.losses)

    def mean_losses(self) -> list[float]:
        """Loss of each step of this epoch so far, over the images of all ranks."""
        self._fetch_loss()
        return np.mean(self.ranks.gather(self.losses), axis=0).tolist()

    def _read(self, epoch: int, start: int) -> Iterator[tuple[Batch, list[int]]]:
        """Yields for each step this rank's images, and how many of them come from each of its streams."""
        seed = random_state(ORDER, self.settings.seed, epoch) % 2**32
        for batches in read_steps(self.plan, self.rank, seed, start):
            whole = join(batches)
            if self.exclusive:
                check_classes(whole.labels, whole.image_ids)
            yield whole.pin() if self.device.type == "cuda" else whole, [len(batch.labels) for batch in batches]

    def _place_loss(
        self, maps: Tensor, truth: Tensor, origins: Tensor, boxes: np.ndarray | None, regions: Tensor | None
    ) -> Tensor:
        """The weighted losses on where findings are seen; boxes and regions are None if the weight is 0."""
        # Connected to the weights, so that every rank joins the average of the gradients.
        loss = maps.sum() * 0
        if boxes is not None:
            loss = loss + self.settings.box_weight * place_loss(maps, boxes, truth, origins, self.grid)
        if regions is not None:
            regions = regions.to(self.device, non_blocking=True)
            loss = loss + self.settings.lung_weight * region_loss(maps, regions, truth, origins, self.grid)
        return loss

    def _step(self, images: Batch, images_per_stream: list[int], epoch: int, step: int, global_size: int) -> Tensor:
        """Updates the weights once. Returns this rank's part of the loss, times the number of ranks, on the device."""
        place, streams = (self.settings.seed, epoch, step), self.plan.streams_of(self.rank)
        draws = [
            draw_changes(number, random_state(AUGMENTATION, *place, stream))
            for stream, number in zip(streams, images_per_stream, strict=True)
        ]
        torch.manual_seed(random_state(DROPOUT, *place, streams[0]))
        draws = torch.cat(draws).to(self.device)
        pixels = augment(images.pixels.to(self.device, non_blocking=True), draws)
        labels, attributes = (part.to(self.device, non_blocking=True) for part in (images.labels, images.attributes))
        # The step's images per rank, on average: gradients are averaged over the ranks, and one may have fewer images.
        num_images = global_size / self.plan.num_ranks
        pieces = self.settings.accumulation
        total = torch.zeros((), device=self.device)
        tensors = (whole.tensor_split(pieces) for whole in (pixels, labels, attributes, draws))
        boxes = [None] * pieces if images.boxes is None else np.array_split(images.boxes, pieces)
        regions = [None] * pieces if images.regions is None else images.regions.tensor_split(pieces)
        for index, (part, truth, known, changes, *places) in enumerate(zip(*tensors, boxes, regions, strict=True)):
            with self.ranks.silent(self.distributed_model) if index < pieces - 1 else nullcontext():
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    if self.grid is None:
                        logits = self.stepped_model(*inputs(part, known))
                    else:
                        logits, maps = self.stepped_model(*inputs(part, known), with_maps=True)
                loss = self._loss(logits.float(), truth, num_images)
                if self.grid is not None:
                    # Divided as the labels' loss, so that a place weighs box_weight times as much as a label.
                    of_places = self._place_loss(maps.float(), truth, origins(changes), *places)
                    loss = loss + of_places / (num_images * truth.shape[1])
                self.scaler.scale(loss).backward()
            total += loss.detach()
        self.ranks.finish_gradients(self.optimizer)
        self.scaler.unscale_(self.optimizer)
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.ranks.step(self.optimizer, self.scaler)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.after_step()
        return total

    def _loss(self, logits: Tensor, labels: Tensor, num_images: float) -> Tensor:
        if self.exclusive:
            return cross_entropy(logits, labels, self.settings.label_smoothing, num_images)
        return masked_bce(logits, labels, self.pos_weight, num_images * labels.shape[1])

    def _fetch_loss(self) -> None:
        if self._pending is None:
            return
        loss, batch, place = self._pending
        self._pending = None
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise InputError(
                f"the loss is {self.losses[-1]} in {place}, images {', '.join(map(str, batch.image_ids))}: inspect "
                "them, lower training.learning_rate, or set training.clip_norm"
            )


def _by_rate(model: XrayClassifier, settings: Training, rate: float) -> list[nn.Parameter] | list[dict]:
    """The parameters that learn; if training.layer_decay is below 1, in groups of the same learning rate."""
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if settings.layer_decay == 1:
        return list(learning.values())
    shares = learning_rate_shares(model, settings.model, settings.layer_decay)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in learning.items():
        groups.setdefault(shares[name], []).append(parameter)
    return [{"params": groups[share], "lr": rate * share} for share in sorted(groups)]


def inputs(pixels: Tensor, attributes: Tensor) -> tuple[Tensor, ...]:
    """The model's arguments; attributes only if they are read."""
    return (pixels, attributes) if attributes.shape[1] else (pixels,)
