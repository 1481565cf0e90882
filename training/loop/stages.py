"""The stages of a training: with training.head_epochs, first the new last layer alone, then all weights."""

from dataclasses import dataclass, replace

from torch import nn

from conf.settings import Training
from training.network.models import XrayClassifier


@dataclass(frozen=True)
class Stage:
    """A part of a training with its own optimizer and schedule; it starts from the best epoch so far."""

    name: str
    settings: Training
    """settings of this stage alone"""
    freezes_body: bool

    def frozen(self, model: XrayClassifier) -> list[nn.Module]:
        """The parts of the model that keep their weights."""
        return [model.body, model.neck] if self.freezes_body else []


def stages_of(settings: Training) -> list[Stage]:
    """One stage, or two: otherwise a random last layer would first spoil the weights that the body came with."""
    everything = Stage("all", replace(settings, head_epochs=0), freezes_body=False)
    if not settings.head_epochs:
        return [everything]
    # No warm-up: it protects the body from large first steps, and here the body is frozen.
    changes = {"epochs": settings.head_epochs, "learning_rate": settings.head_learning_rate, "warmup_epochs": 0.0}
    return [Stage("head", replace(everything.settings, **changes), freezes_body=True), everything]
