"""Reads finished trainings, to compare them: what was trained, on what, how well, and at what price."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from conf.errors import InputError
from conf.workspace import Workspace
from training.ensembles.members import Member, first_difference, read_member
from training.measures.metrics import mean_over_findings
from training.network.checkpoint import BEST, Checkpoint
from training.record.course import Course, read_course


@dataclass(frozen=True)
class Run:
    """A finished training."""

    name: str
    run_id: str
    """in MLflow"""
    member: Member
    facts: dict[str, object]
    """column -> what the run's files say, None if they do not"""
    course: Course | None
    training: dict[str, object] = field(default_factory=dict)
    """settings of the training; empty for predictions of others"""

    @property
    def auroc(self) -> dict[str, dict[str, float | None]]:
        """Finding, and `mean` -> value, low and high on the test split."""
        return self.member.test_auroc


def read_runs(folders: list[str], tracking_server: str = "") -> list[Run]:
    """Reads the runs, in this order. tracking_server: keeps their MLflow runs; empty: each workspace its own.

    Raises InputError for fewer than one, a folder twice, files that no finished training wrote, and for runs whose
    AUROCs cannot be compared: other tables, versions, findings, test images or labels.
    """
    workspaces = [Workspace.at(folder, tracking_server) for folder in folders]
    places = [workspace.root.resolve() for workspace in workspaces]
    if not places or len(set(places)) < len(places):
        raise InputError(f"the runs are {folders}, expected one or more different workspaces of finished trainings")
    names = names_of([workspace.root for workspace in workspaces])
    # Side by side, because reading predictions takes most of the time.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        members = list(threads.map(read_member, workspaces))
    runs = [read_run(member, name) for member, name in zip(members, names, strict=True)]
    for other in runs[1:]:
        if difference := first_difference(runs[0].member, other.member):
            raise InputError(
                f"{runs[0].member.workspace.root} and {other.member.workspace.root} cannot be compared: {difference}. "
                "A difference of two AUROCs means something on the same films only: train both on the same version of "
                "the same table (--etl.table, --training.delta_version)"
            )
    return runs


def names_of(roots: list[Path]) -> list[str]:
    """The folders' last names, with as many folders above as it takes to tell them apart."""
    for depth in range(1, max(len(root.parts) for root in roots) + 1):
        names = ["/".join(root.parts[-depth:]) for root in roots]
        if len(set(names)) == len(names):
            return names
    return [str(root) for root in roots]


def read_run(member: Member, name: str) -> Run:
    """Reads what else is known of a training. Of an older release's files, what they lack is None."""
    workspace = member.workspace
    evaluation = json.loads(workspace.evaluation.read_text(encoding="utf-8"))
    summary = json.loads(workspace.summary.read_text(encoding="utf-8")) if workspace.summary.exists() else {}
    checkpoint = Checkpoint.load(workspace.checkpoints / BEST)
    training = checkpoint.settings.get("training", {})
    errors = evaluation["splits"]["test"].get("calibration_error_with_temperature", {})
    known = np.array([np.nan if error is None else error for error in errors.values()])
    # Those of an earlier training's model may be there.
    is_own = summary.get("registry", {}).get("run_id") == checkpoint.run_id
    aurocs, speed = (summary.get(name, {}) if is_own else {} for name in ("test_auroc", "throughput"))
    fell = aurocs["fp32"] - aurocs["int8"] if aurocs.get("fp32") and aurocs.get("int8") else None
    facts = {
        "network": checkpoint.model,
        "parameters": checkpoint.num_parameters,
        "size_px": checkpoint.size_px,
        "weights": training.get("weights") or "random",
        "trained": _trained(training),
        "seed": training.get("seed"),
        "epochs": summary.get("training", {}).get("epochs"),
        "best_epoch": checkpoint.epoch,
        "table": evaluation["delta_table_id"],
        "delta_version": evaluation["delta_version"],
        "test_images": evaluation["splits"]["test"]["images"],
        "test_patients": evaluation["splits"]["test"]["patients"],
        "calibration_error": mean_over_findings(known) if len(known) else None,
        "images_per_s": summary.get("training", {}).get("images_per_s"),
        "int8_images_per_s": speed.get("int8"),
        "int8_auroc_fall": fell,
    }
    return Run(name, checkpoint.run_id, member, facts, read_course(workspace, checkpoint.run_id), training)


def _trained(training: dict) -> str | None:
    """Which weights were trained: `head`, `all`, or `head, all` one after the other. training: settings."""
    stages = [name for name, key in (("head", "head_epochs"), ("all", "epochs")) if training.get(key)]
    return ", ".join(stages) or None
