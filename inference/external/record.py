"""Records an external test in MLflow: a run below the training's, and a tag of the model's version."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

# Imported first, because it silences what mlflow would log on import.
from training.record.store import WORKSPACE, end_dead_runs, use_store  # isort: skip

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from etl.contract.vocabulary import metric_name
from inference.candidate.registration import add_version
from inference.external.results import FIGURES, PAGE, REPORT, TABLES
from inference.model.model_files import ModelFiles
from inference.model.properties import Properties
from inference.model.registry import TESTED_AT
from training.record.addresses import settle

MODEL = "model"
"""folder of the recalibrated model, with the name that registered models' folders have, Workspace.model"""
PRIVATE = ("predictions.parquet", "left_out.csv")
"""tables with the names of images and patients, which stay in the workspace"""


def record(workspace: Workspace, found: ModelFiles, properties: Properties, report: dict, folder: Path) -> str:
    """Logs the results to a new run and tags the version; returns the run's id. The caller has locked the workspace."""
    use_store(workspace)
    settle(workspace)
    # A run of a test that was killed.
    end_dead_runs(workspace)
    client = mlflow.MlflowClient()
    site, now = report["site"], datetime.now(UTC)
    tags = {
        MLFLOW_PARENT_RUN_ID: properties.run_id,
        WORKSPACE: workspace.identity,
        "external_site": site,
        "registered_model": found.name,
        "registered_version": str(found.version),
        "mlflow.note.content": RESEARCH_USE,
    }
    experiment = client.get_run(properties.run_id).info.experiment_id
    run_id = client.create_run(experiment, tags=tags, run_name=f"external test at {site}").info.run_id
    try:
        for name, value in _metrics(report).items():
            client.log_metric(run_id, metric_name(name), value)
        for name in (REPORT, PAGE, *TABLES):
            if name not in PRIVATE:
                client.log_artifact(run_id, str(folder / name), "external")
        for name in FIGURES:
            client.log_artifact(run_id, str(folder / name), "external")
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    summary = {
        "site": site,
        "at": now.isoformat(timespec="seconds"),
        "images": report["images"],
        "patients": report["patients"],
        "mode": report["model"]["mode"],
        "splits": report["films"]["splits"],
        "findings": _defined(report["auroc"]),
        "auroc": report["auroc"]["mean"],
        "findings_of_change": _defined(report["own_test"].get("change", {})),
        "change": report["own_test"].get("change", {}).get("mean"),
        "overlap": report["films"]["seen_by_training"],
        "run_id": run_id,
    }
    # Unity Catalog takes no full stop or hyphen in the name of a tag, and two sites must not share one.
    key = TESTED_AT + re.sub("[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", site)
    client.set_model_version_tag(found.name, str(found.version), key, json.dumps(summary))
    return run_id


def _defined(areas: dict[str, dict]) -> int:
    """Number of findings whose AUROC, or change, is defined: the mean is over these."""
    return sum(ends["value"] is not None for finding, ends in areas.items() if finding != "mean")


def add_recalibrated(found: ModelFiles, properties: Properties, folder: Path, site: str, run_id: str) -> int:
    """Registers the recalibrated model in `folder`/model as the challenger; returns its number.

    run_id: the run of the test, which gets the results with the recalibration.
    """
    for name in (REPORT, PAGE):
        mlflow.MlflowClient().log_artifact(run_id, str(folder / name), "external")
    tags = {
        "run_id": properties.run_id,
        "delta_table_id": properties.delta_table_id,
        "delta_version": str(properties.delta_version),
        "git_commit": properties.commit,
        "gate": "not asked",
        "recalibrated_for": site,
        "recalibrated_from": str(found.version),
        "external_run_id": run_id,
        "intended_use": RESEARCH_USE,
    }
    verdict = f"Version {found.version} with calibration and thresholds for {site}; no gate was asked."
    return add_version(found.name, properties, folder / MODEL, tags, verdict)


def _metrics(report: dict) -> dict[str, float]:
    """The AUROC of each shared finding and of their mean, and what else is one number; undefined ones are left out."""
    findings = (*report["findings"]["shared"], "mean")
    metrics = {f"external_auroc_{finding}": report["auroc"][finding]["value"] for finding in findings}
    metrics |= {f"external_ece_{finding}": report["calibration_error"].get(finding) for finding in findings}
    metrics["external_unfamiliar"] = report["unfamiliar"]["value"]
    if "change" in report["own_test"]:
        metrics["external_auroc_change"] = report["own_test"]["change"]["mean"]["value"]
    return {name: value for name, value in metrics.items() if value is not None}
