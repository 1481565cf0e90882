"""What an MLflow run has to hear, in order: sent at once, or kept on disk while a tracking server is away."""

import json
import time
from pathlib import Path

import mlflow
import requests
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException, RestException

from conf.workspace import write_json
from training.record.store import full_disk_is_input_error

# How often a server that is away is asked again, and how long for an answer.
TRY_EVERY_S, HEALTH_S = 60, 10
# Refusals that may pass: not logged in any more, too slow, too much.
PASSING = (401, 403, 408, 429)


class Outbox:
    """Calls of mlflow.MlflowClient with plain arguments. A file holds those that a server has not taken yet.

    Where there is no server, but a database in the workspace, nothing is kept, and a call that fails raises.
    """

    def __init__(self, path: Path, server: str):
        """path: of the file, which a training that ended before may have left; server: address, or empty."""
        self.path, self.server = path, server
        self.waiting: list[list] = json.loads(path.read_text(encoding="utf-8")) if server and path.exists() else []
        self.next_try = 0.0

    def send(self, method: str, *arguments: object) -> None:
        """Calls the method of that name; what was kept goes first. arguments: as JSON has them; of log_batch the run,
        and (name, value, milliseconds, step) of each metric."""
        if not self.server:
            with full_disk_is_input_error():
                _call(method, *arguments)
            return
        stamp = _stamp(arguments[1]) if method == "log_artifact" else None
        self.waiting.append([stamp, method, *arguments])
        if time.monotonic() < self.next_try:
            self._keep()
        else:
            self.flush()

    def flush(self) -> bool:
        """Sends what is waiting; whether nothing is left. What the server will never take is said and left out."""
        done = 0
        try:
            # MLflow itself would try for minutes.
            if self.waiting:
                requests.get(f"{self.server}/health", timeout=HEALTH_S).raise_for_status()
            for stamp, *call in self.waiting:
                try:
                    if stamp and _stamp(call[2]) != stamp:
                        raise FileNotFoundError(f"{call[2]} is of a later training by now")
                    _call(*call)
                except (MlflowException, requests.RequestException, OSError) as error:
                    if _may_pass(error):
                        raise
                    print(
                        f"MLflow does not take {call[0]} of run {call[1]}, it is left out: {error!s:.300}", flush=True
                    )
                done += 1
        except (MlflowException, requests.RequestException) as error:
            if not self.next_try:
                away = f"MLflow's server {self.server} is away ({type(error).__name__})"
                print(f"{away}, the training goes on: {self.path} keeps what it misses", flush=True)
            self.next_try = time.monotonic() + TRY_EVERY_S
        else:
            if self.next_try:
                print(f"MLflow's server {self.server} is back and has what it missed", flush=True)
            self.next_try = 0.0
        del self.waiting[:done]
        self._keep()
        return not self.waiting

    def _keep(self) -> None:
        if self.waiting:
            write_json(self.path, self.waiting)
        else:
            self.path.unlink(missing_ok=True)


def _stamp(path: str) -> list[int]:
    """Size and time of a file, by which it is known again; none where it is gone."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _may_pass(error: Exception) -> bool:
    """Whether it was the connection or the server's state that failed, not what was asked of it."""
    if isinstance(error, RestException):
        status = error.get_http_status_code()
    elif isinstance(error, requests.RequestException):
        status = getattr(error.response, "status_code", 500)
    else:
        # A file that is gone; of MLflow's others the connection's.
        return isinstance(error, MlflowException)
    return status >= 500 or status in PASSING


def _call(method: str, *arguments: object) -> None:
    client = mlflow.MlflowClient()
    if method == "log_batch":
        run_id, metrics = arguments
        client.log_batch(run_id, [Metric(*metric) for metric in metrics])
    else:
        getattr(client, method)(*arguments)
