"""The stages of a training: the new last layer alone, for training.head_epochs, and all weights."""

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
    stages = []
    if settings.head_epochs:
        # No warm-up: it protects the body from large first steps, and here the body is frozen.
        changes = {"epochs": settings.head_epochs, "learning_rate": settings.head_learning_rate, "warmup_epochs": 0.0}
        stages.append(Stage("head", replace(settings, head_epochs=0, **changes), freezes_body=True))
    if settings.epochs:
        stages.append(Stage("all", replace(settings, head_epochs=0), freezes_body=False))
    return stages
