"""The MLflow run of a study, and below it a run of each training."""

from collections.abc import Sequence
from pathlib import Path

# Imported first, because it silences what mlflow would log on import.
from training.record.store import use_store  # isort: skip

import mlflow
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from jobs.studies.comparison import Comparison
from jobs.studies.record import log_comparison
from training.record.tracking import MAX_METRICS, find_experiment

STUDY, RUN, COPY_OF, FOLDER = (f"chexscale.{name}" for name in ("study", "run", "copy_of", "folder"))
"""tags: the identity of the study's workspace; the name of a training in it; the run in the training's own store that a
run was copied from, and the folder of that store"""
SYSTEM = "system/"
"""what the names of CPU's, memory's and GPUs' metrics begin with"""
MAX_PARAMS = 100
"""most parameters that MLflow accepts in one call"""


class StudyRun:
    """The run of a study in the store of its workspace or, with a tracking server, in that."""

    def __init__(self, workspace: Workspace, experiment: str, name: str):
        """Finds the study's run, or makes it. experiment: training.experiment."""
        self.workspace = workspace
        use_store(workspace, make=True)
        self.client = mlflow.MlflowClient()
        self.experiment = find_experiment(workspace, experiment)
        known = self._find(STUDY, workspace.identity)
        self.run_id = known or self._create(f"study {name}", {STUDY: workspace.identity})

    def add(self, name: str, trained: Workspace, run_id: str) -> None:
        """Puts the run of a training below the study's: the run itself if both are in one store, otherwise a copy.

        An earlier training of this name is no longer below it.
        """
        use_store(self.workspace)
        for old in self._children(name):
            if old.data.tags.get(COPY_OF, old.info.run_id) == run_id:
                return
            if COPY_OF in old.data.tags:
                self.client.delete_run(old.info.run_id)
            else:
                self.client.delete_tag(old.info.run_id, MLFLOW_PARENT_RUN_ID)
        if trained.tracking_server:
            self.client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, self.run_id)
            self.client.set_tag(run_id, RUN, name)
        else:
            self._copy(name, trained, run_id)

    def end(self, status: str, comparison: Comparison | None = None, files: Sequence[Path] = ()) -> None:
        """Ends the study's run, and adds its comparison and these files if there is one."""
        use_store(self.workspace)
        if comparison:
            log_comparison(self.client, self.run_id, comparison, files)
        self.client.set_terminated(self.run_id, status)

    def _copy(self, name: str, trained: Workspace, run_id: str) -> None:
        use_store(trained)
        source = mlflow.MlflowClient()
        run = source.get_run(run_id)
        kept = [metric for metric in run.data.metrics if not metric.startswith(SYSTEM)]
        metrics: list[Metric] = [point for metric in kept for point in source.get_metric_history(run_id, metric)]
        params = [Param(key, value) for key, value in run.data.params.items()]
        use_store(self.workspace)
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, RUN: name, FOLDER: str(trained.root)}
        copy = self._create(name, tags, run.info.start_time)
        for start in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(copy, params=params[start : start + MAX_PARAMS])
        for start in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(copy, metrics=metrics[start : start + MAX_METRICS])
        self.client.set_terminated(copy, run.info.status, run.info.end_time)
        # Last: a copy that was cut short is made again.
        self.client.set_tag(copy, COPY_OF, run_id)

    def _create(self, name: str, tags: dict[str, str], start_time: int | None = None) -> str:
        tags = {"mlflow.note.content": RESEARCH_USE, **tags}
        return self.client.create_run(self.experiment, start_time, tags=tags, run_name=name).info.run_id

    def _find(self, tag: str, value: str) -> str:
        runs = self.client.search_runs([self.experiment], f"tags.`{tag}` = '{value}'", max_results=1)
        return runs[0].info.run_id if runs else ""

    def _children(self, name: str) -> list[mlflow.entities.Run]:
        of = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.run_id}' AND tags.`{RUN}` = '{name}'"
        return self.client.search_runs([self.experiment], of)
