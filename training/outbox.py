"""What an MLflow run has to hear, in order: sent at once, or kept on disk while a tracking server is away."""

import json
import time
from pathlib import Path

import mlflow
import requests
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException, RestException

from conf.workspace import write_json

# A server that is away costs a training so many seconds at most for each try.
TRY_EVERY_S = 60


class Outbox:
    """Calls of mlflow.MlflowClient with plain arguments. A file holds those that a server has not taken yet.

    Where there is no server, but a database in the workspace, a call that fails raises as ever.
    """

    def __init__(self, path: Path, server: str):
        """path: of the file, which a training that ended before may have left; server: address, or empty."""
        self.path, self.server = path, server
        self.waiting: list[list] = []
        self.next_try = 0.0
        if path.exists():
            left = json.loads(path.read_text(encoding="utf-8"))
            if left["server"] == server:
                self.waiting = left["calls"]
            else:
                path.rename(path.with_stem(f"{path.stem}_{int(time.time())}"))
                print(f"What {left['server']} has missed stays beside {path.name}: give that server to send it")

    def send(self, method: str, *arguments: object) -> None:
        """Calls the method of that name; what was kept goes first. arguments: as JSON has them; of log_batch the run,
        and (name, value, milliseconds, step) of each metric."""
        self.waiting.append([method, *arguments])
        if time.monotonic() < self.next_try:
            self._keep()
        else:
            self.flush()

    def flush(self) -> bool:
        """Sends what is waiting; whether nothing is left."""
        sent = 0
        try:
            for call in self.waiting:
                _call(*call)
                sent += 1
        except (MlflowException, requests.RequestException) as error:
            if not self._is_away(error):
                raise
            if not self.next_try:
                print(f"MLflow's server {self.server} is away, the training goes on: {self.path} keeps what it misses")
            self.next_try = time.monotonic() + TRY_EVERY_S
        else:
            if self.next_try:
                print(f"MLflow's server {self.server} is back and has all that it missed")
            self.next_try = 0.0
        del self.waiting[:sent]
        self._keep()
        return not self.waiting

    def _keep(self) -> None:
        if self.waiting:
            write_json(self.path, {"server": self.server, "calls": self.waiting})
        else:
            self.path.unlink(missing_ok=True)

    def _is_away(self, error: Exception) -> bool:
        """Whether it was the connection or the server that failed, not what was asked of it."""
        answered = isinstance(error, RestException) and error.get_http_status_code() < 500
        return bool(self.server) and not answered


def _call(method: str, *arguments: object) -> None:
    client = mlflow.MlflowClient()
    if method == "log_batch":
        run_id, metrics = arguments
        client.log_batch(run_id, [Metric(*metric) for metric in metrics])
    else:
        getattr(client, method)(*arguments)
