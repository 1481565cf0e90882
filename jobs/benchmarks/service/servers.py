"""Starts the project's service and MLflow's server as processes, for measurements."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from conf.workspace import Workspace
from inference.model.registry import CHAMPION

NAME = "chexscale"
# What the servers print once they serve.
SERVES, MLFLOW_SERVES = r"Next: open (http://[^,\s]+)", r"running on (http://\S+)"


def service_command(workspace: Workspace, mode: str, python: str = sys.executable) -> list[str]:
    """Returns the service's command. python: the interpreter of the environment that the service runs in."""
    script = Path(__file__).parents[3] / "inference" / "serve.py"
    options = {"workspace": workspace.root, "serving.port": 0, "serving.mode": mode, "serving.requests_per_minute": 0}
    return [python, str(script), *(f"--{key}={value}" for key, value in options.items())]


def mlflow_command() -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    return ["mlflow", "models", "serve", "-m", f"models:/{NAME}@{CHAMPION}", *options]


def first_finding_s(command: list[str]) -> float:
    """Starts the service, sends one image and stops it; returns the seconds until the answer."""
    image = cv2.imencode(".png", np.tile(np.arange(256, dtype=np.uint8), (256, 1)))[1].tobytes()
    began = time.perf_counter()
    with started(command, SERVES, 1) as address:
        request = urllib.request.Request(f"{address}/v1/predict", image, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request) as answer:
            answer.read()
        return time.perf_counter() - began


@contextmanager
def started(command: list[str], pattern: str, stream: int, workspace: Workspace | None = None) -> Iterator[str]:
    """Starts a server and yields its address once it prints it on standard output (stream 1) or error (2)."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{workspace.tracking_db}"} if workspace else {}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    pipes["stdout" if stream == 1 else "stderr"] = subprocess.PIPE
    environment = {**os.environ, "PATH": path, **store}
    with subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes) as process:
        try:
            for line in process.stdout or process.stderr:
                if found := re.search(pattern, line):
                    with ThreadPoolExecutor(1) as reader:
                        # Read what else it prints, since a full pipe would block it.
                        reader.submit((process.stdout or process.stderr).read)
                        yield found[1]
                        process.terminate()
                    break
            else:
                raise RuntimeError(f"`{' '.join(command)}` ended with exit code {process.wait()} before it served")
        finally:
            process.terminate()
