"""The INT8 model in the MLflow registry, with its lineage: the one owner of mlflow in this package."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

# First: it silences what mlflow would log on import.
from training.store import metric_name, use_store  # isort: skip

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from conf.errors import InputError
from conf.workspace import Workspace
from inference.gate import Decision
from training.checkpoint import Checkpoint

PYFUNC_FILE = Path(__file__).parent / "pyfunc_model.py"
# The files are on this disk: a bar over two of them tells nothing.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

CHALLENGER, CHAMPION = "challenger", "champion"
INTENDED_USE = "Research use only, not for clinical use."
DESCRIPTION = (
    f"Findings on frontal chest radiographs, INT8 for CPUs. {INTENDED_USE} Input: (n, S, S) uint8 grey pixels. "
    'Output: a probability per finding; params={"maps": True} adds class activation maps. '
    "`challenger` is the last version, `champion` the last one that passed the gate."
)


@dataclass(frozen=True)
class Registered:
    """A version in the registry."""

    model: str
    version: int
    aliases: list[str]


def check_run(workspace: Workspace, run_id: str) -> str:
    """Status of the run that trained the checkpoint, `FINISHED` where all went well; creates nothing.

    Raises InputError when the run is not in the workspace's store.
    """
    advice = "give the workspace of the training, or run `python training/train.py` again"
    if not (workspace.tracking_server or workspace.tracking_db.exists()):
        raise InputError(f"no MLflow store at {workspace.tracking_db}, the checkpoint names run {run_id}: {advice}")
    use_store(workspace)
    try:
        return mlflow.get_run(run_id).info.status
    except MlflowException as error:
        store = workspace.tracking_server or workspace.tracking_db
        raise InputError(f"run {run_id} of the checkpoint is not in {store}: {advice}") from error


def register(
    workspace: Workspace, name: str, checkpoint: Checkpoint, graph: Path, report: dict, decision: Decision
) -> Registered:
    """Logs the INT8 model, its measurements and figure to the training's run, and registers it as a new version.

    graph: folder of the INT8 graph; report: see inference/report.py. The new version gets the alias `challenger`, and
    `champion` when the gate passed; the aliases move last, so that they never point at an unfinished version.
    """
    use_store(workspace)
    with reopened(checkpoint.run_id):
        mlflow.log_metrics(_metrics(report))
        for path, folder in (
            (workspace.model / "report.json", "inference"),
            (workspace.figures / "test_auroc.png", "figures"),
        ):
            mlflow.log_artifact(str(path), folder)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PYFUNC_FILE),
            artifacts={"ir": str(graph)},
            signature=_signature(checkpoint),
            input_example=_grey_ramp(checkpoint.size_px),
            # Named, or mlflow would load the model in a second process to find them out.
            pip_requirements=[
                f"{package}=={version(package)}" for package in ("mlflow", "openvino", "numpy", "pandas")
            ],
        )
    client = mlflow.MlflowClient()
    # mlflow announces its steps on stderr; the entry prints the outcome.
    with redirect_stderr(io.StringIO()):
        created = mlflow.register_model(logged.model_uri, name, tags=_tags(checkpoint, report, decision))
    client.update_registered_model(name, DESCRIPTION)
    verdict = "Passed the gate: " if decision.passed else "Refused by the gate: "
    client.update_model_version(name, created.version, f"{INTENDED_USE} {verdict}{'; '.join(decision.reasons)}")
    aliases = [CHALLENGER, CHAMPION] if decision.passed else [CHALLENGER]
    for alias in aliases:
        client.set_registered_model_alias(name, alias, created.version)
    return Registered(name, int(created.version), aliases)


@contextmanager
def reopened(run_id: str) -> Iterator[None]:
    """Makes the training's run the active one; afterwards its status and duration are the training's again."""
    training = mlflow.get_run(run_id).info
    try:
        with mlflow.start_run(run_id=run_id):
            yield
    finally:
        mlflow.MlflowClient().set_terminated(run_id, training.status, training.end_time)


def champion_version(workspace: Workspace, name: str) -> int | None:
    """The version that `champion` points at; None where there is none."""
    use_store(workspace)
    try:
        return int(mlflow.MlflowClient().get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def trained_versions(workspace: Workspace, delta_table_id: str) -> set[int]:
    """Versions of this Delta table that any registered model was trained on."""
    use_store(workspace)
    found = mlflow.search_model_versions(filter_string=f"tags.delta_table_id = '{delta_table_id}'")
    return {int(version.tags["delta_version"]) for version in found}


def _metrics(report: dict) -> dict[str, float]:
    """The report's numbers under the names of the run; undefined ones are left out."""
    metrics = {}
    for variant, aurocs in report["test_auroc"].items():
        metrics[f"test_auroc_mean_{variant}"] = aurocs["mean"]
        metrics |= {f"test_auroc_{variant}_{finding}": value for finding, value in aurocs["per_finding"].items()}
    for variant, speed in report["speed"].items():
        metrics[f"latency_ms_{variant}"] = speed["latency_ms"]
        metrics[f"images_per_s_{variant}"] = speed["images_per_s"]
    return {metric_name(name): value for name, value in metrics.items() if value is not None}


def _tags(checkpoint: Checkpoint, report: dict, decision: Decision) -> dict[str, str]:
    """Where the version came from and what was measured."""
    means = {f"test_auroc_{variant}": aurocs["mean"] for variant, aurocs in report["test_auroc"].items()}
    return {
        "run_id": checkpoint.run_id,
        "delta_table_id": checkpoint.delta_table_id,
        "delta_version": str(checkpoint.delta_version),
        "git_commit": checkpoint.commit,
        "gate": "passed" if decision.passed else "failed",
        "gate_reasons": "; ".join(decision.reasons)[:5000],
        **{key: "undefined" if mean is None else f"{mean:.4f}" for key, mean in means.items()},
        "intended_use": INTENDED_USE,
    }


def _signature(checkpoint: Checkpoint) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, checkpoint.size_px, checkpoint.size_px))]),
        outputs=Schema([ColSpec("float", finding) for finding in checkpoint.findings]),
        params=ParamSchema([ParamSpec("maps", "boolean", False)]),
    )


def _grey_ramp(size_px: int) -> np.ndarray:
    """(1, S, S) uint8: an example that shows the shape and nobody's chest."""
    return np.tile(np.linspace(0, 255, size_px).astype(np.uint8), (1, size_px, 1))
