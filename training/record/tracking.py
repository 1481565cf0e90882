"""The MLflow run of a training, written by rank 0 only."""

import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

# Imported first, because it silences what mlflow would log on import.
from training.record.store import GONE, SAMPLE_EVERY_S, WORKSPACE, end_dead_runs, use_store  # isort: skip

import mlflow
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from conf.settings import Settings
from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from etl.contract.vocabulary import metric_name
from training.record.addresses import settle
from training.record.outbox import Outbox

if TYPE_CHECKING:
    # An ensemble is tracked too, and needs no torch.
    from training.loop.stages import Stage
    from training.ranks.topology import Topology
    from training.record.events import EventFiles

# Without this tag, MLflow 3's UI takes the experiment for one with language models and hides its training runs.
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}

MAX_METRICS = 1000
"""most metrics that MLflow accepts in one call"""
# Ending of a metric's name -> the part of an interval that the metric holds.
ENDS = {"": "value", "_low": "low", "_high": "high"}
Point = tuple[str, float, int, int]
"""metric, value, milliseconds since 1970, step or epoch"""


def git_commit() -> str:
    """Hash of the running checkout, with `-dirty` if files differ from it; `unknown` outside a checkout.

    Files that pip installed are outside, even where their environment lies in a checkout of something else.
    """
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").rstrip("\n")) != root.resolve():
            return "unknown"
        return git("rev-parse", "HEAD").strip() + ("-dirty" if git("status", "--porcelain").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def find_experiment(workspace: Workspace, name: str) -> str:
    """Id of the experiment of this name in the workspace's store, which use_store has opened; made if missing."""
    if experiment := mlflow.get_experiment_by_name(name):
        return experiment.experiment_id
    # A server has a place of its own for artifacts.
    folder = None if workspace.tracking_server else workspace.artifacts.as_uri()
    return mlflow.create_experiment(name, folder, tags=MODEL_TRAINING)


class TrackedRun:
    """One MLflow run, from its start to `end`."""

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        table: TableVersion,
        topology: "Topology | None",
        title: str = "",
        run_id: str | None = None,
        section: str = "",
        experiment: str = "",
    ):
        """Starts a run, or continues run_id, and logs what is known before the first step.

        topology: the ranks of a training; None for what trains no network, or trains in one process. Without ranks,
        title is the run's name, and section names the section of the settings that is logged as its parameters (empty:
        none). experiment: the experiment's name; empty: training.experiment.
        """
        use_store(workspace, make=True)
        settle(workspace)
        training = settings.training
        experiment = experiment or training.experiment
        find_experiment(workspace, experiment)
        mlflow.set_experiment(experiment)
        mlflow.set_system_metrics_sampling_interval(SAMPLE_EVERY_S)
        if topology and topology.num_hosts > 1:
            os.environ.setdefault("MLFLOW_SYSTEM_METRICS_NODE_ID", socket.gethostname())
        self.outbox = Outbox(workspace.unsent, workspace.tracking_server)
        self.outbox.flush()
        self.tags = {WORKSPACE: workspace.identity}
        end_dead_runs(workspace)
        try:
            run = mlflow.start_run(run_id, log_system_metrics=True) if run_id else None
        except mlflow.MlflowException as error:
            if error.error_code not in GONE:
                raise
            print(f"The interrupted training's run {run_id} is gone ({error}): it continues in a new run", flush=True)
            run = None
        self.is_new = run is None
        if self.is_new:
            name = title or f"{training.model} {training.size_px} px"
            run = mlflow.start_run(
                run_name=f"{name}, Delta version {table.card.delta_version}",
                description=RESEARCH_USE,
                tags=self.tags,
                log_system_metrics=True,
            )
        self.run_id = run.info.run_id
        self.experiment_id = run.info.experiment_id
        self.stage_ids: list[str] = []
        self.stage_id = ""
        self.events: EventFiles | None = None
        """gets the points of this run too"""
        self.commit = git_commit()
        if self.is_new:
            try:
                self._log_beginning(workspace, settings, table, topology, section)
            except BaseException:
                mlflow.end_run("FAILED")
                raise

    def __enter__(self) -> "TrackedRun":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.end(error)

    def _log_beginning(
        self,
        workspace: Workspace,
        settings: Settings,
        table: TableVersion,
        topology: "Topology | None",
        section: str,
    ) -> None:
        card = table.card
        if section := "training" if topology else section:
            mlflow.log_params({f"{section}.{key}": value for key, value in settings.to_dict()[section].items()})
        if topology:
            names = ("launcher", "backend", "world_size", "device")
            mlflow.log_params({name: getattr(topology, name) for name in names})
        mlflow.log_param("delta_version", card.delta_version)
        mlflow.set_tags({"delta_version": str(card.delta_version), "delta_table": table.shards})
        mlflow.set_tag("git_commit", self.commit)
        mlflow.log_dict(settings.to_dict(), "settings.yaml")
        mlflow.log_text(card.to_json(), workspace.card.name)
        # The page describes the newest version, and this training may use an older one.
        if workspace.card_page.exists() and Card.read(workspace.card).sha256 == card.sha256:
            mlflow.log_artifact(str(workspace.card_page))
        source = DeltaDatasetSource(path=table.shards, delta_table_version=card.delta_version)
        lineage = {
            "delta_version": str(card.delta_version),
            "delta_table_id": card.delta_table_id,
            "card_sha256": card.sha256,
        }
        dataset = MetaDataset(source, name=f"Delta version {card.delta_version}", digest=card.sha256[:8])
        mlflow.log_input(dataset, context="training", tags=lineage)

    def plan_stages(self, stages: "list[Stage]", run_ids: list[str]) -> None:
        """Plans a child run for each stage, if there are several. run_ids: child runs of an interrupted training."""
        if not self.is_new:
            self.stage_ids = run_ids
        if len(stages) == 1 or self.stage_ids:
            return
        client = mlflow.MlflowClient()
        for stage in stages:
            tags = {MLFLOW_PARENT_RUN_ID: self.run_id, **self.tags}
            run_id = client.create_run(self.experiment_id, tags=tags, run_name=f"stage {stage.name}").info.run_id
            for key in ("epochs", "learning_rate", "warmup_epochs"):
                client.log_param(run_id, f"training.{key}", getattr(stage.settings, key))
            client.update_run(run_id, "SCHEDULED")
            self.stage_ids.append(run_id)

    def begin_stage(self, index: int) -> None:
        """Logs the following epochs to this stage's run too; ends the run of the previous stage, if any."""
        if self.stage_id:
            self._terminate(self.stage_id, "FINISHED")
        if self.stage_ids:
            self.stage_id = self.stage_ids[index]
            self.outbox.send("update_run", self.stage_id, "RUNNING")

    def _terminate(self, run_id: str, status: str) -> None:
        # With its time, because a server may receive it much later.
        self.outbox.send("set_terminated", run_id, status, int(time.time() * 1000))

    def end(self, error: type[BaseException] | None) -> None:
        """Ends the run: FINISHED without an error, KILLED if a person or a launcher stopped it, otherwise FAILED."""
        stopped = error is not None and not issubclass(error, Exception)
        status = "KILLED" if stopped else "FAILED" if error else "FINISHED"
        left = self.stage_ids[self.stage_ids.index(self.stage_id) :] if self.stage_id else self.stage_ids
        try:
            for run_id in (*left, self.run_id):
                self._terminate(run_id, status)
            if not self.outbox.flush():
                print(f"{self.outbox.path} keeps what MLflow's server has missed: the next training here sends it")
        except (mlflow.MlflowException, OSError) as failure:
            # The error that ended the training must stay the last message that a person reads.
            if error is None:
                raise
            print(f"MLflow does not hear of the end of run {self.run_id}: {failure!s:.300}", flush=True)
        finally:
            if self.events:
                self.events.close()
            # Stops mlflow's threads; an unreachable server learns of the end through the outbox.
            with suppress(mlflow.MlflowException):
                mlflow.end_run(status)

    def log_steps(self, name: str, first_step: int, values: list[float]) -> None:
        """Logs one value per step, many per call."""
        now_ms = int(time.time() * 1000)
        points = [(name, value, now_ms, first_step + index) for index, value in enumerate(values)]
        self._log_points(self.run_id, points)
        self._add_events("steps", points)

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Logs an epoch's metrics, also to the stage's run; leaves out undefined ones (NaN)."""
        points = _points_of(metrics, epoch)
        for run_id in filter(None, (self.run_id, self.stage_id)):
            self._log_points(run_id, points)
        self._add_events("epochs", points)

    def _add_events(self, name: str, points: list[Point]) -> None:
        if self.events:
            self.events.add(name, points)

    def _log_points(self, run_id: str, points: list[Point]) -> None:
        for start in range(0, len(points), MAX_METRICS):
            self.outbox.send("log_batch", run_id, points[start : start + MAX_METRICS])

    def log_figure(self, path: Path) -> None:
        """Adds a picture to the run's artifacts, below figures/."""
        self.outbox.send("log_artifact", self.run_id, str(path), "figures")

    def log_evaluation(self, workspace: Workspace, report: dict) -> None:
        """Adds the report and the predictions to the artifacts, and the test split's means to the metrics."""
        for path in (workspace.evaluation, workspace.predictions):
            self.outbox.send("log_artifact", self.run_id, str(path))
        test = report["splits"]["test"]
        means = {f"{measure}_mean": test[measure]["mean"] for measure in ("auroc", "average_precision")}
        for name, ends in {**means, **test.get("accuracy", {})}.items():
            points = _points_of({f"test_{name}{end}": ends[key] for end, key in ENDS.items()})
            self._log_points(self.run_id, points)
            self._add_events("test", points)

    def log_file(self, path: Path) -> None:
        """Adds a file to the run's artifacts."""
        self.outbox.send("log_artifact", self.run_id, str(path))

    def log_checkpoint(self, path: Path) -> None:
        """Adds the checkpoint to the run's artifacts, below checkpoints/."""
        self.outbox.send("log_artifact", self.run_id, str(path), "checkpoints")


def _points_of(metrics: dict[str, float | None], step: int = 0) -> list[Point]:
    """Leaves out undefined metrics (None, NaN)."""
    now_ms = int(time.time() * 1000)
    named = ((metric_name(name), value) for name, value in metrics.items())
    return [(name, value, now_ms, step) for name, value in named if value is not None and value == value]
