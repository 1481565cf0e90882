"""Logs a comparison to the MLflow store of its reference run."""

from collections.abc import Sequence
from pathlib import Path

# Imported first, because it silences what mlflow would log on import.
from training.record.store import status_of, use_store  # isort: skip

import mlflow

from conf.errors import InputError
from conf.words import RESEARCH_USE
from etl.contract.vocabulary import metric_name
from jobs.studies.comparison import MEAN, Comparison
from training.record.addresses import settle


def record(comparison: Comparison, files: list[Path]) -> str:
    """Logs the files and the mean AUROCs as a run beside the reference's; returns its id.

    Raises InputError if the reference's workspace is in use, or has no store.
    """
    workspace = comparison.reference.member.workspace
    with workspace.exclusive():
        use_store(workspace)
        settle(workspace)
        client = mlflow.MlflowClient()
        if status_of(workspace, comparison.reference.run_id) is None:
            raise InputError(
                f"{workspace.store} does not know the run of {comparison.reference.name}: the files are written, but "
                "MLflow has no record of them; name the --tracking_server that has the run, or another --reference"
            )
        experiment = client.get_run(comparison.reference.run_id).info.experiment_id
        tags = {"compared": ", ".join(run.name for run in comparison.runs)[:1000], "mlflow.note.content": RESEARCH_USE}
        name = f"comparison of {len(comparison.runs)} runs"
        run_id = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        try:
            log_comparison(client, run_id, comparison, files)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
    return run_id


def log_comparison(client: mlflow.MlflowClient, run_id: str, comparison: Comparison, files: Sequence[Path]) -> None:
    """Adds a comparison to a run: its files and, as metrics, each compared run's mean AUROC and difference.

    use_store has opened the store.
    """
    for run, difference in zip(comparison.runs, comparison.differences, strict=True):
        for metric, ends in (("auroc", run.auroc[MEAN]), ("difference", difference[MEAN])):
            if ends["value"] is not None:
                client.log_metric(run_id, metric_name(f"compared_{metric}_{run.name}"), ends["value"])
    for file in files:
        client.log_artifact(run_id, str(file), "comparison")
