"""Registers a candidate as a version in the MLflow registry, with its measurements, lineage and model card."""

import io
from contextlib import redirect_stderr
from importlib.metadata import version
from pathlib import Path

# Imported first, because it silences what mlflow would log on import.
from training.record.store import status_of, use_store  # isort: skip

import mlflow
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from conf.errors import InputError
from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from etl.contract.vocabulary import metric_name
from inference.candidate.gate import Decision
from inference.model.graphs import INPUTS
from inference.model.inputs import without_films
from inference.model.properties import Properties
from inference.model.registry import CHALLENGER, CHAMPION, MAX_TAG, Registered, promote
from training.record.addresses import settle

LUNGS_FILE = Path(__file__).parents[1] / "model" / "lung_pyfunc.py"
PYFUNC_FILE = Path(__file__).parents[1] / "model" / "pyfunc_model.py"

DESCRIPTION = (
    f"Findings on frontal chest radiographs, INT8 for CPUs. {RESEARCH_USE} Input: (n, S, S) uint8 grey pixels, or what "
    "the version's signature says. "
    "Output: a calibrated probability per finding, and the distance from the training data; "
    'params={"maps": True} adds class activation maps. '
    "`challenger` is the newest version, `champion` the last one that passed the gate or was promoted by hand."
)


def check_run(workspace: Workspace, run_id: str) -> str:
    """Status of the run that trained the checkpoint, `FINISHED` if it ended well; creates nothing.

    Raises InputError when the run is not in the workspace's store.
    """
    advice = "give the workspace of the training, or run `python training/train.py` again"
    if not workspace.has_store:
        raise InputError(f"no MLflow store at {workspace.tracking_db}, the checkpoint names run {run_id}: {advice}")
    status = status_of(workspace, run_id)
    if status is None:
        raise InputError(f"run {run_id} of the checkpoint is not in {workspace.store}: {advice}")
    return status


def register(
    workspace: Workspace,
    name: str,
    properties: Properties,
    folder: Path,
    report: dict,
    decision: Decision,
    compared: int | None = None,
) -> Registered:
    """Logs the model, its measurements and figure to the training's run, and registers it as a new version.

    folder: what is registered, <workspace>/model; report: see report.py; compared: see promote. The new version gets
    the alias `challenger`, and `champion` when the gate passed; the aliases move last, so that they never point at an
    unfinished version.
    """
    use_store(workspace)
    settle(workspace)
    # Logged by the run's id, so that the run stays ended, with its status and duration, whenever this stops.
    run_id = properties.run_id
    mlflow.log_metrics(_metrics(report), run_id=run_id)
    for path, place in (
        (folder / "report.json", "inference"),
        (workspace.figures / "test_auroc.png", "figures"),
    ):
        mlflow.log_artifact(str(path), place, run_id)
    verdict = f"{'Passed' if decision.passed else 'Refused by'} the gate: {'; '.join(decision.reasons)}"
    number = add_version(name, properties, folder, _tags(properties, report, decision), verdict)
    if not decision.passed:
        return Registered(name, number, [CHALLENGER])
    promote(workspace, name, number, f"passed the gate: {'; '.join(decision.reasons)}", compared=compared)
    return Registered(name, number, [CHALLENGER, CHAMPION])


def register_lungs(workspace: Workspace, name: str, folder: Path, about: dict) -> int:
    """Logs a lung network below its training's run, and registers it as the champion of its name; returns its version.

    folder: see etl/contract/images/lungs/files.py; about: its lungs.json.
    """
    use_store(workspace)
    settle(workspace)
    test = about["overlap"][about["precision"]]["test"]["iou"]
    mlflow.log_metric(f"test_iou_{about['precision']}", test, run_id=about["run_id"])
    square = np.zeros((1, about["size_px"], about["size_px"]), np.uint8)
    lineage = {key: str(about[key]) for key in ("run_id", "delta_table_id", "delta_version", "sha256")}
    number = _log_version(
        name,
        about["run_id"],
        "lungs",
        tags=lineage | {"git_commit": about["commit"], "test_iou": f"{test:.4f}", "intended_use": RESEARCH_USE},
        packages=("mlflow", "openvino", "numpy"),
        python_model=str(LUNGS_FILE),
        artifacts={"lungs": str(folder)},
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *square.shape[1:]))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *square.shape[1:]))]),
        ),
        input_example=square,
    )
    client = mlflow.MlflowClient()
    client.update_registered_model(name, f"The lungs on frontal chest radiographs, as logits per pixel. {RESEARCH_USE}")
    client.set_registered_model_alias(name, CHAMPION, str(number))
    return number


def add_version(name: str, properties: Properties, folder: Path, tags: dict[str, str], verdict: str) -> int:
    """Logs the model in `folder` below the training's run, and registers it as the challenger; returns its number.

    verdict: a sentence for the version's description. mlflow must use the workspace's store already.
    """
    number = _log_version(
        name,
        properties.run_id,
        "model",
        tags=tags,
        packages=("mlflow", "openvino", "numpy", "pandas"),
        python_model=str(PYFUNC_FILE),
        artifacts={"graphs": str(folder)},
        signature=_signature(properties),
        input_example=_example(properties),
    )
    client = mlflow.MlflowClient()
    client.update_registered_model(name, DESCRIPTION)
    client.update_model_version(name, str(number), f"{RESEARCH_USE} {verdict}")
    client.set_registered_model_alias(name, CHALLENGER, str(number))
    return number


def _log_version(
    name: str, run_id: str, logged_as: str, *, tags: dict[str, str], packages: tuple[str, ...], **model
) -> int:
    """Logs a model below a run, and registers it as a new version of `name`, whose number is returned.

    logged_as: the model's name in the run. packages: what it needs. model: the other arguments of mlflow's Model.log.
    """
    # Where the model's files go; without it, MLflow would make a folder of its own in the current one.
    mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
    # mlflow.pyfunc.log_model would need an active run.
    logged = Model.log(
        artifact_path=None,
        name=logged_as,
        flavor=mlflow.pyfunc,
        run_id=run_id,
        # Named, because mlflow would otherwise load the model in a second process to find them.
        pip_requirements=[f"{package}=={version(package)}" for package in packages],
        **model,
    )
    # mlflow announces its steps on stderr; the entry prints the outcome.
    with redirect_stderr(io.StringIO()):
        return int(mlflow.register_model(logged.model_uri, name, tags=tags).version)


def _metrics(report: dict) -> dict[str, float]:
    """The report's numbers as metrics of the run; undefined ones are left out."""
    metrics = {}
    for variant, aurocs in report["test_auroc"].items():
        metrics |= {f"test_auroc_{variant}_{finding}": ends["value"] for finding, ends in aurocs.items()}
        metrics[f"test_auroc_mean_{variant}"] = metrics.pop(f"test_auroc_{variant}_mean")
    for variant, speed in report["speed"].items():
        metrics |= {f"{key}_{variant}": value for key, value in speed.items()}
    for variant, places in report["localisation"].items():
        metrics[f"pointing_game_{variant}"] = places["all"]["pointing_game"]
    return {metric_name(name): value for name, value in metrics.items() if value is not None}


def _tags(properties: Properties, report: dict, decision: Decision) -> dict[str, str]:
    """Tags with the lineage and the measurements of the version."""
    means = {f"test_auroc_{variant}": aurocs["mean"]["value"] for variant, aurocs in report["test_auroc"].items()}
    return {
        "run_id": properties.run_id,
        "delta_table_id": properties.delta_table_id,
        "delta_version": str(properties.delta_version),
        "git_commit": properties.commit,
        "gate": "passed" if decision.passed else "failed",
        "gate_reasons": "; ".join(decision.reasons)[:MAX_TAG],
        **{key: "undefined" if mean is None else f"{mean:.4f}" for key, mean in means.items()},
        "intended_use": RESEARCH_USE,
    }


def _signature(properties: Properties) -> ModelSignature:
    outputs = [*properties.findings, "distance"]
    return ModelSignature(
        inputs=_inputs(properties),
        outputs=Schema([ColSpec("float", name) for name in outputs]),
        params=ParamSchema([ParamSpec("maps", "boolean", False)]),
    )


def _inputs(properties: Properties) -> Schema:
    pixels = np.dtype(np.uint8), (-1, *properties.image_shape)
    if not properties.attributes:
        return Schema([TensorSpec(*pixels)])
    columns = len(properties.attributes["columns"])
    return Schema([TensorSpec(*pixels, INPUTS[0]), TensorSpec(np.dtype(np.float32), (-1, columns), INPUTS[1])])


def _example(properties: Properties) -> np.ndarray | dict[str, np.ndarray]:
    """An example of the input: a ramp from black to white that shows no chest, of a patient who is not known."""
    inputs = without_films(properties, 1)
    ramp = np.linspace(0, 255, properties.size_px).astype(np.uint8)
    inputs[0][:] = ramp if properties.channels == 1 else ramp[:, None]
    return dict(zip(INPUTS, inputs, strict=True)) if properties.attributes else inputs[0]
