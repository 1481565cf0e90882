"""Reads the files that finished trainings left, for an ensemble; checks each, and checks them against each other."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from training.measures.calibration import Calibration
from training.measures.metrics import check_predictions, ranked_auroc_per_finding
from training.measures.predictions import Predictions
from training.network.checkpoint import BEST, LAST, Checkpoint

ENSEMBLE = "ensemble"
"""what a checkpoint of an ensemble has as its network"""
PREDICTED = ("val", "test")
"""splits that a training predicts"""


@dataclass(frozen=True)
class Member:
    """A finished training. Its rows are sorted by image, so that all members have the same order."""

    workspace: Workspace
    findings: list[str]
    exclusive: bool
    """whether each image has exactly one of the findings"""
    trained_on: dict[str, str | int]
    """delta_table_id and delta_version"""
    test_auroc: dict[str, dict[str, float | None]]
    """finding, and `mean` -> value, low and high, as evaluation.json has them"""
    val_auroc: float | None
    """its mean over the findings, as evaluation.json has it; None undefined"""
    splits: dict[str, Predictions]
    """predictions of val and test; the logits are calibrated, float64: their sigmoid is the calibrated probability"""
    shifts: np.ndarray
    temperatures: np.ndarray
    """of its calibration, (findings,) float64, see Calibration"""
    patients: np.ndarray
    """patient_id of each image of the test split, (images,) str"""


def read_members(folders: list[str], workspace: Workspace) -> list[Member]:
    """Reads the members. Raises InputError for fewer than two, a member twice, unusable files, or members of different
    tables, images or labels.
    """
    members = [Workspace.at(folder, setting="ensemble.members") for folder in folders]
    places = [member.root.resolve() for member in members]
    if len(places) < 2 or len(set(places)) < len(places):
        raise InputError(
            f"ensemble.members is {folders}, expected two or more different workspaces of finished trainings: "
            """--ensemble.members '["runs/a", "runs/b"]'"""
        )
    if workspace.root.resolve() in places or has_other_model(workspace, ENSEMBLE):
        raise InputError(
            f"workspace {workspace.root} has a training, whose evaluation the ensemble's would replace: choose another "
            "with --workspace"
        )
    read = [read_member(member) for member in members]
    for other in read[1:]:
        difference = first_difference(read[0], other)
        if difference:
            raise InputError(
                f"{read[0].workspace.root} and {other.workspace.root} cannot be combined: {difference}. Train all "
                "members on the same version of the same table (--training.delta_version)"
            )
    return read


def has_other_model(workspace: Workspace, network: str) -> bool:
    """Whether the workspace has a checkpoint, finished or not, of another kind of network than this one."""
    if not workspace.checkpoints.exists():
        return False
    best = workspace.checkpoints / BEST
    # Without it, an ensemble was killed, or a training that has finished no epoch yet and can resume.
    return Checkpoint.load(best).model != network if best.exists() else (workspace.checkpoints / LAST).exists()


def read_member(workspace: Workspace) -> Member:
    """Reads one member. Raises InputError for files that are absent, truncated, or not of the same training."""
    with _reading(workspace.evaluation) as path:
        report = json.loads(path.read_text(encoding="utf-8"))
        # null means undefined: nothing is known about such a finding, so any finite logit will do.
        shifts, temperatures = (
            np.nan_to_num(np.array(list(report[key].values()), np.float64), nan=neutral)
            for key, neutral in (("logit_shifts", 0), ("temperatures", 1))
        )
        reported = {name: report["splits"][name]["auroc"] for name in PREDICTED}
        findings, test_auroc = list(report["temperatures"]), report["splits"]["test"]["auroc"]
        exclusive, val_auroc = report["exclusive"], reported["val"]["mean"]["value"]
        trained_on = {key: report[key] for key in ("delta_table_id", "delta_version")}
    if exclusive and np.ptp(temperatures):
        raise InputError(
            f"{workspace.evaluation} is of an older release, which gave each class a temperature of its own: train "
            "again with this release, or leave the workspace out"
        )
    calibration = Calibration(shifts, temperatures, {}, exclusive)
    with _reading(workspace.predictions) as path:
        table = pd.read_parquet(path).sort_values("image_id")
        splits = {}
        for name, auroc in reported.items():
            rows = table[table["split"] == name]
            labels, logits = np.stack(rows["labels"]), np.stack(rows["logits"])
            calibrated = calibration.calibrated(logits)
            check_predictions(labels, calibrated)
            splits[name] = Predictions(rows["image_id"].to_numpy(), labels, calibrated)
            # Predictions of another training have other AUROCs.
            for finding, measured in zip(auroc, ranked_auroc_per_finding(labels, logits), strict=False):
                value = auroc[finding]["value"]
                if not np.isclose(measured, np.nan if value is None else value, rtol=0, atol=1e-6, equal_nan=True):
                    raise ValueError(
                        f"its AUROC of {finding}, {name} split, is {measured}, {workspace.evaluation.name} has {value}"
                    )
        if not table["image_id"].is_unique:
            raise ValueError("an image is in it twice")
        patients = table.loc[table["split"] == "test", "patient_id"].to_numpy()
    fitted = shifts, temperatures
    return Member(workspace, findings, exclusive, trained_on, test_auroc, val_auroc, splits, *fitted, patients)


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    try:
        yield path
    except (OSError, KeyError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is not what a finished training writes ({type(error).__name__}: {error}): train it to its end "
            "(training/train.py --resume continues an interrupted one), or leave its workspace out"
        ) from error


def first_difference(one: Member, other: Member) -> str:
    """Why two members cannot be combined; empty if they can."""
    for key, value in one.trained_on.items():
        if value != other.trained_on[key]:
            return f"{key} is {value} and {other.trained_on[key]}"
    if one.findings != other.findings:
        return f"their findings are {one.findings} and {other.findings}"
    if one.exclusive != other.exclusive:
        return "only one has classes (training.loss cross_entropy); gradient boosting never has"
    for name, ours in one.splits.items():
        theirs = other.splits[name]
        alone = sorted(set(ours.image_ids) ^ set(theirs.image_ids))
        if alone:
            return f"image {alone[0]} of the {name} split is in one of them only"
        for row, column in np.argwhere(~np.isclose(ours.labels, theirs.labels, equal_nan=True))[:1]:
            labels = f"{ours.labels[row, column]} and {theirs.labels[row, column]}"
            return f"image {ours.image_ids[row]} of the {name} split has the labels {labels} for {one.findings[column]}"
    return ""


def table_of(member: Member) -> TableVersion:
    """The version of the table that the member was trained on. Raises InputError if it is gone."""
    newest = TableVersion.of(member.workspace)
    return newest.trained_on(**member.trained_on, trained=str(member.workspace.root))
