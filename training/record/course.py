"""The course of a training over time, as MLflow has recorded it."""

from dataclasses import dataclass

# Imported first, because it silences what mlflow would log on import.
from training.record.store import use_store  # isort: skip

import mlflow

from conf.errors import InputError
from conf.workspace import Workspace

MEASURE = "val_auroc_mean"


@dataclass(frozen=True)
class Course:
    """When a training was how good. Pauses between an interruption and the resumption count."""

    seconds: float
    """from the start of the run to its end"""
    epochs: list[tuple[float, float]]
    """seconds since the start of the run, and mean validation AUROC, of each epoch"""

    def seconds_to(self, auroc: float) -> float | None:
        """Seconds to the first epoch whose mean validation AUROC is at least `auroc`; None if no epoch's is."""
        return next((seconds for seconds, value in self.epochs if value >= auroc), None)


def read_course(workspace: Workspace, run_id: str) -> Course | None:
    """The course of a run; None if the workspace's store is gone, or does not know the run or its end."""
    if not workspace.has_store:
        return None
    try:
        use_store(workspace)
        client = mlflow.MlflowClient()
        info = client.get_run(run_id).info
        history = client.get_metric_history(run_id, MEASURE)
    except (InputError, mlflow.MlflowException):
        # A comparison says of a training only what is still known.
        return None
    if info.end_time is None:
        return None
    epochs = sorted((one.step, (one.timestamp - info.start_time) / 1000, one.value) for one in history)
    return Course((info.end_time - info.start_time) / 1000, [(seconds, value) for _, seconds, value in epochs])
