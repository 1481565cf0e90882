"""Compares the gradients of a training step with those that the CPU computes in fp32."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from jobs.benchmarks.gpu.plan import Cell, Scale
from jobs.benchmarks.gpu.steps import build_trainer

LIMIT = 2e-3
"""largest relative error in fp32 without TF32. On a CPU, another memory layout, which is another order of summation,
gives 3e-4 (ResNet-50) and 3e-5 (DenseNet-121), and bf16 gives 2e-2."""
# What is compared -> precision of the training, and whether convolutions may use TF32, as torch lets them by default.
COMPARED = {
    "fp32 without TF32": ("fp32", False),
    "fp32": ("fp32", True),
    "bf16": ("bf16", True),
    "fp16": ("fp16", True),
}


def compare_gradients(model: str, compared: str, scale: Scale, folder: Path) -> dict:
    """The norm of the error as a share of the norm of the CPU's gradients, and the cosine of the two.

    compared: a key of COMPARED. Only `fp32 without TF32` has a limit.
    """
    precision, tf32 = COMPARED[compared]
    cell = Cell(model, scale.sizes_px[0], scale.gradient_images, "fp32")
    reference = _on_cpu(cell, replace(scale, device="cpu"), folder)
    with convolutions_in_tf32(tf32):
        found = gradients(replace(cell, precision=precision), scale, folder)
    error = ((found - reference).norm() / reference.norm()).item()
    cosine = torch.nn.functional.cosine_similarity(found, reference, dim=0).item()
    return {"error": error, "cosine": cosine, "as_expected": None if tf32 else error < LIMIT}


@cache
def _on_cpu(cell: Cell, scale: Scale, folder: Path) -> Tensor:
    return gradients(cell, scale, folder)


def gradients(cell: Cell, scale: Scale, folder: Path) -> Tensor:
    """All gradients of the trainer's first step, (parameters,) float64 on the CPU."""
    # With BatchNorm's own statistics, random weights would amplify the rounding of fp32 to 5% of the gradients.
    trainer = build_trainer(cell, replace(scale, steps=1), folder, freeze_batchnorm=True)
    # A scale of 65,536 would overflow in the first steps, which the scaler then leaves out.
    trainer.scaler = torch.amp.GradScaler(trainer.device.type, init_scale=64.0, enabled=cell.precision == "fp16")
    found: list[Tensor] = []

    def keep(*_: object) -> None:
        parts = [parameter.grad.detach().double().cpu().flatten() for parameter in trainer.model.parameters()]
        found.append(torch.cat(parts))

    trainer.optimizer.register_step_pre_hook(keep)
    for _ in trainer.train_epoch(0):
        pass
    (everything,) = found
    return everything


@contextmanager
def convolutions_in_tf32(wanted: bool) -> Iterator[None]:
    was = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = was
