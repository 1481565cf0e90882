"""The stages of a training: with training.head_epochs first the new last layer alone, then all weights."""

from dataclasses import dataclass, replace

from torch import nn

from conf.settings import Training
from training.network.models import XrayClassifier


@dataclass(frozen=True)
class Stage:
    """A part of a training with an optimizer and a schedule of its own; it starts from the best epoch so far."""

    name: str
    settings: Training
    """of this stage alone"""
    freezes_body: bool

    def frozen(self, model: XrayClassifier) -> list[nn.Module]:
        """The parts of the model that keep their weights."""
        return [model.body, model.neck] if self.freezes_body else []


def stages_of(settings: Training) -> list[Stage]:
    """One stage, or two: random weights of a last layer would otherwise first spoil those that the body came with."""
    everything = Stage("all", replace(settings, head_epochs=0), freezes_body=False)
    if not settings.head_epochs:
        return [everything]
    # Warm-up protects a body from large first steps.
    changes = {"epochs": settings.head_epochs, "learning_rate": settings.head_learning_rate, "warmup_epochs": 0.0}
    return [Stage("head", replace(everything.settings, **changes), freezes_body=True), everything]
