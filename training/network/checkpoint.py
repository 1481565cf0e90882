"""Checkpoints: written whole or not at all, read without running code from the file.

best.pt is the model of the best epoch; last.pt is all that an interrupted training needs to resume.
"""

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from conf.errors import InputError
from conf.writing import atomic_path
from training.network.build import build_model
from training.network.models import XrayClassifier

BEST, LAST = "best.pt", "last.pt"
# What torch.load raises for damaged or foreign files; URLError, HTTPError and timeouts are OSErrors.
UNREADABLE = (RuntimeError, EOFError, OSError, LookupError, TypeError, ValueError, AttributeError, pickle.PickleError)


@dataclass(frozen=True)
class Checkpoint:
    """The weights, and all that is needed to rebuild the model and to say where it came from."""

    weights: dict[str, torch.Tensor]
    model: str
    findings: list[str]
    size_px: int
    """0: the model sees no image, but age, sex and view alone, see lookup.py"""
    pixel_mean: float
    pixel_std: float
    channels: int
    """channels of the images: 1 grey, 3 RGB"""
    tabular: bool
    """whether the model takes age, sex and view too"""
    epoch: int
    val_auroc: float
    """mean over the findings with a defined AUROC"""
    delta_table_id: str
    delta_version: int
    run_id: str
    commit: str
    settings: dict
    map_stride: int = 0
    """training.map_stride"""
    sharpness: float = 0.0
    """training.sharpness"""
    exclusive: bool = False
    """whether the findings are classes, of which each image has exactly one"""
    ancestors: list[dict] = field(default_factory=list)
    """models whose weights the training started from, see StartingWeights"""
    plan: dict = field(default_factory=dict)
    """as in State; empty in checkpoints of earlier versions"""
    software: dict[str, str] = field(default_factory=dict)
    """versions of Python and of the packages that trained it; empty in checkpoints of earlier versions"""
    members: list[dict] = field(default_factory=list)
    """of several models as one, which has no weights of its own, see training/ensembles/join.py: for each `checkpoint`,
    with the fields of its own, and per finding `shifts`, `temperatures` and `votes`"""

    @property
    def num_parameters(self) -> int:
        """Numbers that were trained, and buffers."""
        every = [self.weights, *(member["checkpoint"]["weights"] for member in self.members)]
        return sum(values.numel() for weights in every for values in weights.values())

    def save(self, path: Path) -> None:
        """Writes the checkpoint; a killed process leaves the old file. Raises InputError if it cannot be written."""
        _save(vars(self), path)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Reads a checkpoint onto the CPU; raises InputError for an absent, truncated or foreign file."""
        if not path.exists():
            raise InputError(f"no checkpoint at {path}: run `python training/train.py` with this workspace first")
        return _load(cls, path, "train again, or give the workspace of a finished training")

    def build(self) -> XrayClassifier:
        """The trained model on the CPU, in evaluation mode. Raises InputError if the weights do not fit the model."""
        model = build_model(
            self.model,
            len(self.findings),
            self.pixel_mean,
            self.pixel_std,
            size_px=self.size_px,
            channels=self.channels,
            tabular=self.tabular,
            exclusive=self.exclusive,
            map_stride=self.map_stride,
            sharpness=self.sharpness,
        )
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise InputError(f"the checkpoint's weights do not fit {self.model}: {error}") from error
        return model.eval()


@dataclass(frozen=True)
class State:
    """A training between two steps."""

    stage: int
    """stage of the next step, from 0"""
    stage_epoch: int
    """finished epochs of this stage"""
    epoch: int
    """epoch of the next step, from 0, counted over all stages"""
    step: int
    """the next step in this epoch, from 0"""
    losses: list[float]
    """losses of this epoch's steps so far"""
    weights: dict[str, torch.Tensor]
    buffers: list[dict[str, torch.Tensor]]
    """buffers of each rank, because between two validations each rank has its own BatchNorm statistics"""
    optimizer: dict
    schedule: dict
    scaler: dict
    all_losses: list[float]
    """losses of the finished epochs' steps"""
    epochs: list[dict[str, float]]
    """metrics of the finished epochs"""
    run_id: str
    stage_run_ids: list[str]
    """empty if the training has only one stage"""
    delta_table_id: str
    delta_version: int
    settings: dict
    """settings of the `training` section alone"""
    plan: dict
    """images per step of all ranks, and number of streams; while both stay the same, so do the images of each step"""
    ancestors: list[dict] = field(default_factory=list)
    """as in Checkpoint"""

    def save(self, path: Path) -> None:
        """Writes the state; a killed process leaves the old file. Raises InputError if it cannot be written."""
        _save(vars(self), path)

    @classmethod
    def load(cls, path: Path) -> "State":
        """Reads a state onto the CPU; raises InputError for an absent, truncated or foreign file."""
        if not path.exists():
            raise InputError(
                f"no interrupted training at {path}: leave out --resume, or give the workspace of a training "
                "that was interrupted"
            )
        return _load(cls, path, "train from the start, without --resume")


def _save(content: dict, path: Path) -> None:
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except (RuntimeError, OSError) as error:
        # torch reports a full disk by a RuntimeError of its file writer or of the stream below it.
        if isinstance(error, RuntimeError) and not re.search("inline_container|iostream", str(error)):
            raise
        reason = str(error).strip().partition("\n")[0][:200]
        before = "; the previous file is intact" if path.exists() else ""
        raise InputError(
            f"{path} cannot be written ({reason}): check the free space and the permissions there{before}"
        ) from error


def _load(kind: type, path: Path, advice: str):
    try:
        return kind(**torch.load(path, map_location="cpu", weights_only=True))
    except UNREADABLE as error:
        raise InputError(f"{path} is not a readable checkpoint ({error!r:.200}): {advice}") from error
