"""A model whose answers can be computed by hand, registered without training, and the service as a process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import cv2
import httpx
import numpy as np
import openvino as ov
from openvino import opset13 as ops

from conf.workspace import Workspace
from conf.writing import write_json
from inference.film.known_boxes import key_of
from inference.model.graphs import INPUTS, OUTPUTS, save_graph, with_properties
from inference.model.properties import Properties
from inference.model.registry import mlflow, promote, use_store
from tests.inference.toy_properties import PROPERTIES as ANY_PROPERTIES
from tests.inference.toy_properties import TAKES_ATTRIBUTES

REPOSITORY = Path(__file__).parents[3]
NAME, SIZE_PX = "chexscale", 32
PROPERTIES = replace(
    ANY_PROPERTIES,
    findings=["Bright", "Dark", "Never"],
    size_px=SIZE_PX,
    thresholds={"youden": [0.5, 0.4, None], "sensitivity_95": [0.1, 0.1, None]},
    distance_threshold=100,
    map_first=1 / 8,
    map_step=1 / 4,
)
# One per finding: above grey 128, Bright becomes more probable and Dark less; Never does not change.
WEIGHTS = np.array([0.05, -0.05, 0.0], np.float32)
AGE_WEIGHT = 0.02
TABULAR = replace(PROPERTIES, attributes=TAKES_ATTRIBUTES.attributes)
UNSURE = replace(
    PROPERTIES,
    unsure={
        "error_rate": 0.1,
        "absent_below": [0.3, 0.35, None],
        "present_above": [0.7, 0.6, None],
        "patients_with": [20, 12, 3],
        "patients_without": [40, 48, 7],
    },
)
"""can answer unsure. For film(150): Bright present, Dark absent, Never unsure, because too few patients have it"""
COLOUR = replace(PROPERTIES, channels=3)


def toy_graph(properties: Properties, weights: np.ndarray) -> ov.Model:
    """Its maps are (grey - 128) * weight at 4 x 4 places; its distance is how far the mean grey is from 128.

    Of colour images, grey is the mean of the channels. If it takes attributes, AGE_WEIGHT * age is added to the maps.
    """
    size = properties.size_px
    inputs = [pixels := ops.parameter([-1, *properties.image_shape], np.uint8)]
    shades = ops.convert(pixels, "f32")
    shades = shades if properties.channels == 1 else ops.reduce_mean(shades, ops.constant([3]))
    grey = ops.subtract(shades, ops.constant(np.float32(128)))
    film = ops.reshape(grey, ops.constant([-1, 1, size, size]), special_zero=False)
    places = ops.avg_pool(film, [size // 4] * 2, [0, 0], [0, 0], [size // 4] * 2, exclude_pad=True)
    maps = ops.multiply(places, ops.constant(weights.reshape(1, -1, 1, 1)))
    if properties.attributes:
        inputs.append(ops.parameter([-1, 3], np.float32))
        age = ops.gather(inputs[1], ops.constant([0]), ops.constant(1))
        added = ops.multiply(age, ops.constant(np.float32(AGE_WEIGHT)))
        maps = ops.add(maps, ops.reshape(added, ops.constant([-1, 1, 1, 1]), special_zero=False))
    probabilities = ops.sigmoid(ops.reduce_mean(maps, ops.constant([2, 3])))
    distances = ops.abs(ops.reduce_mean(grey, ops.constant([1, 2])))
    graph = ov.Model([probabilities, maps, distances], inputs)
    for port, name in zip(graph.inputs, INPUTS, strict=False):
        port.tensor.set_names({name})
    for output, name in zip(graph.outputs, OUTPUTS, strict=True):
        output.tensor.set_names({name})
    return with_properties(graph, properties)


def register(
    workspace: Workspace, properties: Properties = PROPERTIES, weights=WEIGHTS, boxes: dict | None = None
) -> tuple[int, Path]:
    """Registers a new champion; returns its version and its folder."""
    use_store(workspace)
    artifacts = workspace.artifacts / uuid4().hex
    folder = artifacts / "artifacts" / workspace.model.name
    save(folder, properties, weights, boxes)
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    version = int(client.create_model_version(NAME, artifacts.as_uri()).version)
    promote(workspace, NAME, version, "test")
    return version, folder


def save(folder: Path, properties: Properties = PROPERTIES, weights=WEIGHTS, boxes: dict | None = None) -> None:
    """Writes what a registered model holds."""
    save_graph(toy_graph(properties, weights), folder / "int8")
    write_json(folder / "model_card.json", {"intended_use": "tests"})
    write_json(folder / "boxes.json", boxes or {})


def register_on_server(workspace: Workspace, folder: Path) -> str:
    """Registers a champion on the workspace's MLflow server, which keeps the files; returns the run's id.

    folder: for the model's files.
    """
    save(folder / "artifacts" / workspace.model.name)
    use_store(workspace)
    client = mlflow.MlflowClient()
    run = client.create_run("0").info
    client.log_artifacts(run.run_id, str(folder), "registered")
    client.create_registered_model(NAME)
    version = client.create_model_version(NAME, f"{run.artifact_uri}/registered", run.run_id)
    promote(workspace, NAME, int(version.version), "test")
    return run.run_id


def film(grey: int = 150, side_px: int = 128) -> np.ndarray:
    """Returns (S, S) uint8 noise around a grey value, which passes every check of the ETL."""
    rng = np.random.default_rng(grey)
    return rng.normal(grey, 25, (side_px, side_px)).clip(0, 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def boxes_of(image: np.ndarray, boxes: list) -> dict:
    return {key_of(image): boxes}


def other_model() -> Properties:
    """A model with another vocabulary and another size."""
    return replace(
        PROPERTIES, findings=["Other"], size_px=48, shifts=[0], temperatures=[1], thresholds={"youden": [0.3]}
    )


@dataclass
class Running:
    """The service in a process of its own."""

    process: subprocess.Popen
    address: str
    client: httpx.Client
    lines: list[str]
    """lines of its standard output and standard error so far"""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def predict(self, *contents: bytes, **options) -> httpx.Response:
        files = [("files", (f"{index}.png", content)) for index, content in enumerate(contents)]
        return self.client.post("/v1/predict", files=files, **options)

    def metric(self, line: str) -> float:
        """Returns the value of the metric with this name and these labels."""
        (found,) = [row for row in self.client.get("/metrics").text.splitlines() if row.startswith(f"{line} ")]
        return float(found.rpartition(" ")[2])

    def log(self, until: str) -> str:
        """Waits until its output contains `until`, and returns the output; log lines come after their answer."""
        end = time.monotonic() + 30
        while until not in (log := "".join(self.lines)):
            assert time.monotonic() < end, f"{until!r} is not in {log}"
            time.sleep(0.02)
        return log

    @property
    def places(self) -> list[str]:
        """The output lines that name a place in code, as the traceback of every bug does."""
        return [line for line in self.lines if line.startswith('  File "')]

    def end(self) -> int:
        """Ends the service as Ctrl-C does; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@contextmanager
def running(workspace: Workspace, *options: str, key: str = "") -> Iterator[Running]:
    """Starts `python inference/serve.py` on a free port, from another folder, as a user does."""
    script = REPOSITORY / "inference" / "serve.py"
    command = [sys.executable, str(script), f"--workspace={workspace.root}", "--serving.port=0", *options]
    environment = {**os.environ, "CHEXSCALE_API_KEY": key}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=workspace.root
    )
    lines: list[str] = []
    served = threading.Event()

    def read() -> None:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Serving no model") or line.startswith("Next: open"):
                served.set()
        served.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert served.wait(60) and process.poll() is None, "".join(lines)
        address = next(word.rstrip(",;") for line in lines for word in line.split() if word.startswith("http://"))
        headers = {"X-API-Key": key} if key else {}
        with httpx.Client(base_url=address, timeout=30, headers=headers) as client:
            yield Running(process, address, client, lines)
    finally:
        process.terminate()
        process.wait(30)
        reader.join()
