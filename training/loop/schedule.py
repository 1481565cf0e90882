"""The optimizer and its learning rate: how large the rate is and how it changes."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from conf.settings import Training

MOMENTUM = 0.9
WARM_UP_START = 0.01
"""share of the learning rate at which the warm-up starts"""
# CheXNet (Rajpurkar et al., 2017) cuts the rate to a tenth whenever the validation loss stops falling.
PLATEAU_FACTOR = 0.1


def peak_learning_rate(settings: Training, global_batch_size: int) -> float:
    """training.learning_rate, scaled by the images of a step over training.reference_batch if that is set.

    global_batch_size: images per step of all ranks. Source: the linear scaling rule of Goyal et al., "Accurate, large
    minibatch SGD", 2017.
    """
    scale = global_batch_size / settings.reference_batch if settings.reference_batch else 1.0
    return settings.learning_rate * scale


def build_optimizer(
    parameters: Iterable[nn.Parameter] | list[dict], settings: Training, learning_rate: float
) -> Optimizer:
    """The optimizer of these parameters, or of groups of them with learning rates (`lr`) of their own."""
    options = {"lr": learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, nesterov=True, **options)
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optimizer](parameters, **options)


class Schedule:
    """Sets the learning rate of each step; `plateau` decides after each validation whether to drop it."""

    def __init__(self, optimizer: Optimizer, settings: Training, steps_per_epoch: int):
        self.warm_up_steps = round(settings.warmup_epochs * steps_per_epoch)
        self.per_step = _per_step(optimizer, settings, steps_per_epoch, self.warm_up_steps)
        self.plateau = None
        if settings.schedule == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=PLATEAU_FACTOR, patience=settings.plateau_patience
            )

    def after_step(self) -> None:
        self.per_step.step()

    def after_epoch(self, val_loss: float) -> None:
        """val_loss: the same on every rank."""
        # A drop during the warm-up would be undone at its end.
        if self.plateau and self.per_step.last_epoch >= self.warm_up_steps:
            self.plateau.step(val_loss)

    def state_dict(self) -> dict:
        return {"per_step": self.per_step.state_dict(), "plateau": self.plateau and self.plateau.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.per_step.load_state_dict(state["per_step"])
        if self.plateau:
            self.plateau.load_state_dict(state["plateau"])


def _per_step(optimizer: Optimizer, settings: Training, steps_per_epoch: int, warm_up: int) -> LRScheduler:
    steps = steps_per_epoch * settings.epochs
    if settings.schedule == "one_cycle":
        return OneCycleLR(optimizer, max_lr=[group["lr"] for group in optimizer.param_groups], total_steps=steps)
    if settings.schedule == "cosine":
        main = CosineAnnealingLR(optimizer, T_max=max(1, steps - warm_up))
    else:
        main = ConstantLR(optimizer, factor=1.0, total_iters=0)
    if not warm_up:
        return main
    rise = LinearLR(optimizer, start_factor=WARM_UP_START, total_iters=warm_up)
    return SequentialLR(optimizer, [rise, main], milestones=[warm_up])
