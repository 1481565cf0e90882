"""Takes the steps of a cell with the product's trainer, and measures them."""

import gc
import time
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from conf.settings import Training
from jobs.benchmarks.gpu.plan import CONTIGUOUS, MEMORY, Cell, Scale
from jobs.benchmarks.gpu.sources import split_of, write_file
from jobs.benchmarks.gpu.work import flops_per_image, peak_tflops, wait
from jobs.benchmarks.training.fed import NUM_FINDINGS, FedTrainer, alone, random_batch
from training.loop.trainer import Trainer
from training.network.build import build_model
from training.ranks.collectives import Collectives
from training.reading.plan import Plan, Split


class Contiguous(Collectives):
    """Those of one process, which leave the weights in torch's own layout."""

    def distribute(
        self, model: nn.Module, optimizer: Optimizer, backward_passes: int = 1
    ) -> tuple[nn.Module, Optimizer]:
        # The model lays out its images channels-last.
        model.body.register_forward_pre_hook(lambda _, images: images[0].contiguous())
        return model, optimizer


def build_trainer(
    cell: Cell, scale: Scale, folder: Path, ranks: Collectives | None = None, freeze_batchnorm: bool = False
) -> Trainer:
    """Makes the trainer of a cell; every call starts from the same weights. ranks: None for a single process."""
    settings = Training(
        model=cell.model,
        size_px=cell.size_px,
        batch_size=cell.batch_size,
        precision=cell.precision,
        compile=cell.compiled,
        schedule="constant",
        learning_rate=1e-4,
        freeze_batchnorm=freeze_batchnorm,
    )
    kind = Contiguous if cell.layout == CONTIGUOUS else Collectives
    ranks = ranks or kind(alone(scale.device))
    torch.manual_seed(0)
    model = build_model(cell.model, NUM_FINDINGS, 127, 70, size_px=cell.size_px)
    weights = torch.ones(NUM_FINDINGS)
    if cell.batches_from != MEMORY:
        # At least two steps.
        rows = max(scale.rows, 2 * cell.batch_size)
        split = split_of(write_file(folder, rows, cell.size_px), cell.size_px, cell.batches_from)
        return Trainer(model, settings, Plan.of(split, cell.batch_size, 1), weights, ranks)
    split = Split("train", [], [cell.batch_size * scale.steps], cell.size_px)
    trainer = FedTrainer(model, settings, Plan.of(split, cell.batch_size, 1), weights, ranks)
    batch = random_batch(cell.batch_size, cell.size_px)
    trainer.batches = [batch.pin() if trainer.device.type == "cuda" else batch] * scale.steps
    return trainer


def measure(cell: Cell, scale: Scale, folder: Path) -> dict:
    """Measures whole epochs after a first one; returns the values of a row, None for what the device does not tell."""
    started = time.perf_counter()
    trainer = build_trainer(cell, scale, folder)
    device = trainer.device
    images = sum(trainer.train_epoch(0))
    warm_up_s = time.perf_counter() - started
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    wait(device)
    images, steps, waited_s, epoch = 0, 0, 0.0, 0
    started = time.perf_counter()
    while not epoch or time.perf_counter() - started < scale.seconds:
        epoch += 1
        before = time.perf_counter()
        images += sum(trainer.train_epoch(epoch))
        steps += trainer.plan.steps
        waited_s += trainer.result.waiting_fraction * (time.perf_counter() - before)
    wait(device)
    seconds = time.perf_counter() - started
    tflops = flops_per_image(cell.model, cell.size_px) * images / seconds / 1e12
    on_gpu = device.type == "cuda"
    peak = peak_tflops(torch.cuda.get_device_name(device), cell.precision) if on_gpu else None
    return {
        "images_per_s": images / seconds,
        "ms_per_step": 1000 * seconds / steps,
        "tflops": tflops,
        "peak_tflops": peak,
        "share_of_peak": tflops / peak if peak else None,
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None,
        "waiting_share": waited_s / seconds,
        "warm_up_s": warm_up_s,
    }


def forget(device: str) -> None:
    """Frees what the last cell left, also after it failed."""
    torch.compiler.reset()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
