"""Calls to MLflow, in order: sent at once, or kept on disk while a tracking server is unreachable."""

import json
import time
from pathlib import Path

import mlflow
import requests
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException, RestException

from conf.disks import named_if_full
from conf.workspace import opened_place, stored_place
from conf.writing import write_json
from training.record.store import ask_for_life

TRY_EVERY_S = 60
"""seconds between two attempts to reach a server"""
# HTTP statuses that may pass: no longer logged in, too slow, too many requests.
PASSING = (401, 403, 408, 429)


class Outbox:
    """Calls of mlflow.MlflowClient with plain arguments. A file holds the calls that a server has not accepted yet.

    With a database in the workspace instead of a server, nothing is kept, and a call that fails raises.
    """

    def __init__(self, path: Path, server: str):
        """path: the file, which an earlier training may have left. server: its address, or empty."""
        self.path, self.server = path, server
        self.waiting: list[list] = json.loads(path.read_text(encoding="utf-8")) if server and path.exists() else []
        self.next_try = 0.0

    def send(self, method: str, *arguments: object) -> None:
        """Calls the method of that name, after all calls that were kept.

        arguments: values that JSON can hold; for log_batch the run and (name, value, milliseconds, step) per metric.
        """
        if not self.server:
            with named_if_full(self.path.parent):
                _call(method, *arguments)
            return
        stamp = None
        if method == "log_artifact":
            run_id, path, *place = arguments
            # Below the workspace, which may have moved when the call is sent.
            stamp, arguments = _stamp(path), (run_id, stored_place(path, self.path.parent), *place)
        self.waiting.append([stamp, method, *arguments])
        if time.monotonic() < self.next_try:
            self._keep()
        else:
            self.flush()

    def flush(self) -> bool:
        """Sends the waiting calls; returns whether none is left. Reports and drops a call that can never succeed."""
        done = 0
        try:
            # MLflow itself would retry for minutes.
            if self.waiting:
                ask_for_life(self.server)
            for stamp, *call in self.waiting:
                try:
                    if stamp:
                        call[2] = opened_place(call[2], self.path.parent)
                    if stamp and _stamp(call[2]) != stamp:
                        raise FileNotFoundError(f"{call[2]} was replaced by a later training")
                    _call(*call)
                except (MlflowException, requests.RequestException, OSError) as error:
                    if _may_pass(error):
                        raise
                    print(f"MLflow refuses {call[0]} of run {call[1]}, which is left out: {error!s:.300}", flush=True)
                done += 1
        except (MlflowException, requests.RequestException) as error:
            if not self.next_try:
                away = f"MLflow's server {self.server} is unreachable ({type(error).__name__})"
                print(f"{away}; the training continues, and {self.path} keeps what the server misses", flush=True)
            self.next_try = time.monotonic() + TRY_EVERY_S
        else:
            if self.next_try:
                print(f"MLflow's server {self.server} is back and has received what it missed", flush=True)
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
    """Size and modification time of a file, which identify its content; zeros if it is gone."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _may_pass(error: Exception) -> bool:
    """Whether the connection or the server's state failed, rather than the call itself."""
    if isinstance(error, RestException):
        status = error.get_http_status_code()
    elif isinstance(error, requests.RequestException):
        status = getattr(error.response, "status_code", 500)
    else:
        # An OSError is a missing file; MLflow's other errors are those of the connection.
        return isinstance(error, MlflowException)
    return status >= 500 or status in PASSING


def _call(method: str, *arguments: object) -> None:
    client = mlflow.MlflowClient()
    if method == "log_batch":
        run_id, metrics = arguments
        client.log_batch(run_id, [Metric(*metric) for metric in metrics])
    else:
        getattr(client, method)(*arguments)
