"""The MLflow run of a training, written by rank 0 only: the one owner of mlflow in this package."""

import logging
import os
import subprocess
import time
from pathlib import Path

# Before mlflow is imported: its store creation logs every migration, its git module warns where git is absent.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from conf.errors import InputError
from conf.settings import Settings
from conf.workspace import Workspace
from etl.schema import Card
from training.stages import Stage
from training.topology import Topology

# Without it MLflow 3's pages take the experiment for one with language models, and put training runs elsewhere.
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}

# Of a metric's name -> what it is of an interval.
ENDS = {"": "value", "_low": "low", "_high": "high"}

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def use_store(workspace: Workspace) -> None:
    """Points mlflow at the workspace's own database, for runs and for the registry."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{workspace.tracking_db}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


def git_commit() -> str:
    """Hash of the checkout that runs, with `-dirty` where files differ from it; `unknown` outside a checkout."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip() + ("-dirty" if git("status", "--porcelain").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def fetch_checkpoint(workspace: Workspace, address: str) -> Path:
    """The checkpoint of a registered model; address: models:/NAME@ALIAS or models:/NAME/VERSION.

    Raises InputError where the workspace's registry has no such model, or its run no checkpoint.
    """
    use_store(workspace)
    name, _, alias = address.removeprefix("models:/").partition("@")
    client = mlflow.MlflowClient()
    try:
        if alias:
            version = client.get_model_version_by_alias(name, alias)
        else:
            version = client.get_model_version(*name.rsplit("/", 1))
        uri = f"runs:/{version.tags['run_id']}/checkpoints/best.pt"
        return Path(mlflow.artifacts.download_artifacts(uri))
    except (mlflow.MlflowException, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"no checkpoint of {address} in {workspace.tracking_db} ({error}): look at the registry with `make ui`, "
            "and give models:/NAME@ALIAS or models:/NAME/VERSION"
        ) from error


def end_dead_runs() -> None:
    """Marks runs that say RUNNING as KILLED: this process has the workspace's lock, so theirs are gone."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, "attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")


class TrackedRun:
    """One MLflow run, from its start to `end`."""

    def __init__(
        self, workspace: Workspace, settings: Settings, card: Card, topology: Topology | None, run_id: str | None = None
    ):
        """Starts the run, or goes on with one, and logs what is known before the first step.

        topology: of a training; None for an ensemble of finished ones.
        """
        use_store(workspace)
        experiment, training = settings.training.experiment, settings.training
        if mlflow.get_experiment_by_name(experiment) is None:
            mlflow.create_experiment(experiment, workspace.artifacts.as_uri(), tags=MODEL_TRAINING)
        mlflow.set_experiment(experiment)
        mlflow.set_system_metrics_sampling_interval(2)
        end_dead_runs()
        try:
            run = mlflow.start_run(run_id, log_system_metrics=True) if run_id else None
        except mlflow.MlflowException as error:
            print(f"The interrupted training's run {run_id} is gone ({error}): it goes on in a new one", flush=True)
            run = None
        is_new = run is None
        if is_new:
            name = f"{training.model} {training.size_px} px" if topology else f"ensemble, {settings.ensemble.method}"
            run = mlflow.start_run(
                run_name=f"{name}, Delta version {card.delta_version}",
                description="Research use only, not for clinical use.",
                log_system_metrics=True,
            )
        self.run_id = run.info.run_id
        self.stage_id = ""
        self.commit = git_commit()
        if is_new:
            self._log_beginning(workspace, settings, card, topology)

    def __enter__(self) -> "TrackedRun":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.end(error)

    def _log_beginning(self, workspace: Workspace, settings: Settings, card: Card, topology: Topology | None) -> None:
        section = "training" if topology else "ensemble"
        mlflow.log_params({f"{section}.{key}": value for key, value in settings.to_dict()[section].items()})
        if topology:
            names = ("launcher", "backend", "world_size", "device")
            mlflow.log_params({name: getattr(topology, name) for name in names})
        mlflow.log_param("delta_version", card.delta_version)
        mlflow.set_tags({"delta_version": str(card.delta_version), "delta_table": workspace.tables(card.table)[0]})
        mlflow.set_tag("git_commit", self.commit)
        mlflow.log_dict(settings.to_dict(), "settings.yaml")
        mlflow.log_text(card.to_json(), workspace.card.name)
        # The page is of the newest version, and this training may be of an older one.
        if workspace.card_page.exists() and Card.read(workspace.card).sha256 == card.sha256:
            mlflow.log_artifact(str(workspace.card_page))
        source = DeltaDatasetSource(path=workspace.tables(card.table)[0], delta_table_version=card.delta_version)
        lineage = {
            "delta_version": str(card.delta_version),
            "delta_table_id": card.delta_table_id,
            "card_sha256": card.sha256,
        }
        dataset = MetaDataset(source, name=f"Delta version {card.delta_version}", digest=card.sha256[:8])
        mlflow.log_input(dataset, context="training", tags=lineage)

    def begin_stage(self, stage: Stage, run_id: str) -> None:
        """Starts a run of the stage below this one, or goes on with it; the stage before, if any, has ended."""
        client = mlflow.MlflowClient()
        self._end_stage("FINISHED")
        if run_id:
            client.update_run(run_id, "RUNNING")
        else:
            experiment = mlflow.get_run(self.run_id).info.experiment_id
            tags = {MLFLOW_PARENT_RUN_ID: self.run_id}
            run_id = client.create_run(experiment, tags=tags, run_name=f"stage {stage.name}").info.run_id
            for key in ("epochs", "learning_rate", "warmup_epochs"):
                client.log_param(run_id, f"training.{key}", getattr(stage.settings, key))
        self.stage_id = run_id

    def _end_stage(self, status: str) -> None:
        if self.stage_id:
            mlflow.MlflowClient().set_terminated(self.stage_id, status)

    def end(self, error: type[BaseException] | None) -> None:
        """Ends the run: FINISHED without an error, KILLED when a person or a launcher stopped it, else FAILED."""
        stopped = error is not None and not issubclass(error, Exception)
        status = "KILLED" if stopped else "FAILED" if error else "FINISHED"
        self._end_stage(status)
        mlflow.end_run(status)

    def log_steps(self, name: str, first_step: int, values: list[float]) -> None:
        """Logs one value per step, many in a write."""
        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, first_step + index) for index, value in enumerate(values)]
        mlflow.MlflowClient().log_batch(self.run_id, metrics=metrics)

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Logs an epoch's metrics, to the stage's run too; undefined ones (NaN) are left out."""
        defined = {name: value for name, value in metrics.items() if value == value}
        for run_id in filter(None, (self.run_id, self.stage_id)):
            mlflow.log_metrics(defined, step=epoch, run_id=run_id)

    def log_figure(self, path: Path) -> None:
        """Adds a picture to the run's artifacts, below figures/."""
        mlflow.log_artifact(str(path), "figures")

    def log_evaluation(self, workspace: Workspace, report: dict) -> None:
        """Adds the report and the predictions to the artifacts, and the test split's means to the metrics."""
        for path in (workspace.evaluation, workspace.predictions):
            mlflow.log_artifact(str(path))
        test = report["splits"]["test"]
        for measure in ("auroc", "average_precision"):
            mean = {f"test_{measure}_mean{end}": test[measure]["mean"][key] for end, key in ENDS.items()}
            mlflow.log_metrics({name: value for name, value in mean.items() if value is not None})
        for name, ends in test.get("accuracy", {}).items():
            mlflow.log_metrics({f"test_{name}{end}": ends[key] for end, key in ENDS.items() if ends[key] is not None})

    def log_checkpoint(self, path: Path) -> None:
        """Adds the checkpoint to the run's artifacts, below checkpoints/."""
        mlflow.log_artifact(str(path), "checkpoints")
