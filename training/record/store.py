"""MLflow's store, which is a database in the workspace or a server, and the calls to it outside a run.

This module is imported before mlflow, which would log every migration and warn if git is absent.
"""

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A bar over two files says nothing, and fills a log.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow would retry each call for minutes, and the training would wait, while a server is unreachable.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

import mlflow
import requests
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from conf.errors import InputError
from conf.workspace import Workspace
from conf.writing import atomic_path
from training.record.addresses import path_of

WORKSPACE = "workspace"
"""tag of a run that holds its workspace's identity"""
# Error codes of a run that is absent or deleted.
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
CONNECT_S = 10
SAMPLE_EVERY_S = 2
"""seconds between two samples of CPU, memory and GPUs"""

MEMORY = Path("/dev/shm")
"""a folder in memory, on Linux"""

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)
# It logs the traceback of each error of the database that it raises, too.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def use_store(workspace: Workspace, make: bool = False) -> None:
    """Points mlflow at the workspace's server, or else its own database, for runs and for the registry.

    make: makes the database if there is none, which only a training does. Anything else would find an empty registry
    where the database has just been moved away.

    Raises InputError if the server does not answer, if there is no database, or if the workspace's file system cannot
    hold one.
    """
    uri = workspace.tracking_server or f"sqlite:///{workspace.tracking_db}"
    if workspace.tracking_server:
        try:
            ask_for_life(uri)
        except requests.RequestException as error:
            raise InputError(
                f"no MLflow server answers at {uri} ({type(error).__name__}): start it (`mlflow server`), or leave out "
                "--tracking_server to keep the runs in the workspace"
            ) from error
        except mlflow.MlflowException as error:
            raise InputError(
                f"MLflow cannot use {uri} ({error!s:.300}): check the address and this user's rights there, or leave "
                "out --tracking_server to keep the runs in the workspace"
            ) from error
    elif not workspace.tracking_db.exists():
        if not make:
            raise InputError(
                f"no MLflow database at {workspace.tracking_db}: name the workspace or the --tracking_server that has "
                "the runs and models, or put the file back"
            )
        workspace.check_database()
        _make_database(workspace.tracking_db)
    mlflow.set_tracking_uri(uri)
    # Unity Catalog, because Databricks' older registry has no aliases.
    mlflow.set_registry_uri(uri.replace("databricks", "databricks-uc", 1) if is_databricks(uri) else uri)


def ask_for_life(server: str) -> None:
    """Returns if the tracking server answers; raises RequestException or MlflowException if it does not."""
    if server.startswith("http"):
        requests.get(f"{server}/health", timeout=CONNECT_S).raise_for_status()
    else:
        # MLflow finds the server behind the name. Databricks' own client tries for five minutes to reach it.
        mlflow.MlflowClient(server).search_experiments(max_results=1)


def is_databricks(server: str) -> bool:
    """Whether a tracking server is Databricks' own."""
    return server.partition(":")[0] == "databricks"


def _make_database(path: Path) -> None:
    """Makes an empty database of MLflow, complete or not at all.

    MLflow takes 70 transactions, and after a kill between two of them it may refuse the database. In memory, if the
    system has a folder there, it waits for no disk, which takes seconds.
    """
    memory = str(MEMORY) if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="chexscale-") as folder, atomic_path(path) as temporary:
        made = Path(folder) / path.name
        mlflow.MlflowClient(f"sqlite:///{made}").search_experiments()
        shutil.copyfile(made, temporary)


def fetch_checkpoint(workspace: Workspace, address: str) -> Path:
    """The checkpoint of a registered model. address: models:/NAME@ALIAS or models:/NAME/VERSION.

    Raises InputError if the workspace's registry has no such model, or the model's run has no checkpoint.
    """
    use_store(workspace)
    name, _, alias = address.removeprefix("models:/").partition("@")
    client = mlflow.MlflowClient()
    try:
        if alias:
            version = client.get_model_version_by_alias(name, alias)
        else:
            version = client.get_model_version(*name.rsplit("/", 1))
        run_id, name = version.tags["run_id"], "checkpoints/best.pt"
        folder = None if workspace.tracking_server else path_of(workspace, client.get_run(run_id).info.artifact_uri)
        if folder is None:
            return Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{name}"))
        # Not by MLflow, whose address may name the workspace that this one was copied from.
        (folder / name).stat()
        return folder / name
    except (mlflow.MlflowException, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"no checkpoint of {address} in {workspace.store} ({error}): look at "
            "the registry in MLflow's UI, and give models:/NAME@ALIAS or models:/NAME/VERSION"
        ) from error


def status_of(workspace: Workspace, run_id: str) -> str | None:
    """Status of a run, such as FINISHED; None if the store has no such run. Raises InputError if it cannot tell."""
    use_store(workspace)
    try:
        return mlflow.get_run(run_id).info.status
    except mlflow.MlflowException as error:
        if error.error_code in GONE:
            return None
        raise InputError(f"run {run_id} cannot be read from {workspace.store} ({error!s:.300}): try again") from error


def end_dead_runs(workspace: Workspace) -> None:
    """Marks the workspace's RUNNING runs as KILLED: this process holds the lock, so their processes have ended."""
    own = f" AND tags.{WORKSPACE} = '{workspace.identity}'" if workspace.tracking_server else ""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, "attributes.status = 'RUNNING'" + own):
        client.set_terminated(run.info.run_id, "KILLED")


@contextmanager
def monitored_host(workspace: Workspace, run_id: str) -> Iterator[None]:
    """Records this host's CPU, memory and GPUs in rank 0's run, below the host's name, while the context is open."""
    use_store(workspace)
    mlflow.set_system_metrics_sampling_interval(SAMPLE_EVERY_S)
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, node_id=socket.gethostname())
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
