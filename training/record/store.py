"""Where MLflow keeps runs and models, a database in the workspace or a server, and what is asked of it beside a run.

Imported before mlflow: its store creation logs every migration, its git module warns where git is absent.
"""

import errno
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Of a server: MLflow's own patience, minutes for each call, would stop the training while it is away.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

import mlflow
import requests
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from conf.errors import InputError
from conf.workspace import Workspace

WORKSPACE = "workspace"
"""tag of a run: its workspace's identity"""
CONNECT_S = 10
SAMPLE_EVERY_S = 2
"""of CPU, memory and GPUs"""

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def metric_name(name: str) -> str:
    """The name with what MLflow takes for a metric; a finding may be called `COVID+`, or `Opacity (left)`."""
    return re.sub(r"[^\w\-. :]", "_", name)


def use_store(workspace: Workspace) -> None:
    """Points mlflow at the workspace's server, or else its own database, for runs and for the registry.

    Raises InputError where the server does not answer.
    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    uri = workspace.tracking_server or f"sqlite:///{workspace.tracking_db}"
    if workspace.tracking_server:
        try:
            requests.get(f"{uri}/health", timeout=CONNECT_S).raise_for_status()
        except requests.RequestException as error:
            raise InputError(
                f"no MLflow server answers at {uri} ({type(error).__name__}): start it (`mlflow server`), or leave out "
                "--tracking_server to keep the runs in the workspace"
            ) from error
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


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
            f"no checkpoint of {address} in {workspace.store} ({error}): look at "
            "the registry in MLflow's pages, and give models:/NAME@ALIAS or models:/NAME/VERSION"
        ) from error


def end_dead_runs(workspace: Workspace) -> None:
    """Marks the workspace's runs that say RUNNING as KILLED: this process has its lock, so theirs are gone."""
    own = f" AND tags.{WORKSPACE} = '{workspace.identity}'" if workspace.tracking_server else ""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, "attributes.status = 'RUNNING'" + own):
        client.set_terminated(run.info.run_id, "KILLED")


@contextmanager
def full_disk_is_input_error() -> Iterator[None]:
    """Makes a database's failure to write what it is, an OSError, which a command ends on with a message."""
    try:
        yield
    except mlflow.MlflowException as error:
        if not re.search("disk is full|disk I/O error", str(error)):
            raise
        raise OSError(errno.ENOSPC, "MLflow cannot write", mlflow.get_tracking_uri()) from error


@contextmanager
def monitored_host(workspace: Workspace, run_id: str) -> Iterator[None]:
    """Adds this host's CPU, memory and GPUs to rank 0's run, below the host's name, while it is open."""
    use_store(workspace)
    mlflow.set_system_metrics_sampling_interval(SAMPLE_EVERY_S)
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, node_id=socket.gethostname())
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
