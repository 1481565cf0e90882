"""Checkpoints: written whole or not at all, read without running code from the file."""

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from conf.errors import InputError
from conf.workspace import atomic_path
from training.models import XrayClassifier, build_model

BEST = "best.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The weights and all that is needed to rebuild the model and to name where it came from."""

    weights: dict[str, torch.Tensor]
    model: str
    findings: list[str]
    size_px: int
    pixel_mean: float
    pixel_std: float
    epoch: int
    val_auroc: float
    """mean over the findings with a defined AUROC"""
    delta_table_id: str
    delta_version: int
    run_id: str
    commit: str
    settings: dict

    def save(self, path: Path) -> None:
        """Writes the checkpoint; a kill leaves the old file."""
        with atomic_path(path) as temporary:
            torch.save(asdict(self), temporary)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Reads a checkpoint onto the CPU; raises InputError for an absent, truncated or foreign file."""
        if not path.exists():
            raise InputError(f"no checkpoint at {path}: run `python training/train.py` with this workspace first")
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, EOFError, TypeError, KeyError, OSError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path} is not a readable checkpoint ({error!r:.200}): "
                "train again, or give the workspace of a finished training"
            ) from error

    def build(self) -> XrayClassifier:
        """The trained model on the CPU, in evaluation mode. Raises InputError when the weights do not fit it."""
        model = build_model(self.model, len(self.findings), self.pixel_mean, self.pixel_std)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise InputError(f"the checkpoint's weights do not fit {self.model}: {error}") from error
        return model.eval()
