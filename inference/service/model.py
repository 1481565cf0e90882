"""A registered model, opened to answer many requests at a time."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from inference.graphs import GraphQueue, open_graph, properties_of
from inference.known_boxes import load_boxes
from inference.properties import CARD_FILE, Properties
from inference.service.batching import Start, start_in_thread
from inference.variants import open_variant


@dataclass(frozen=True)
class Model:
    """One version, with all that is told of it."""

    name: str
    version: int
    mode: str
    folder: Path
    properties: Properties
    start: Start
    num_requests: int
    """batches that may be started before the first of them is answered"""
    boxes: dict[str, list[list[float]]]
    """known ones, see inference/known_boxes.py"""
    card: dict
    loaded_at: str
    """UTC, ISO 8601"""

    @property
    def identity(self) -> dict:
        """As every answer names the model."""
        return {"name": self.name, "version": self.version, "mode": self.mode}

    @cached_property
    def properties_json(self) -> str:
        return self.properties.to_json()


def open_model(folder: Path, name: str, version: int, mode: str) -> Model:
    """Opens the variant `mode` of the registered model in `folder`, and has it answer once.

    Afterwards the files may go away or change. Raises InputError for a variant that is missing or damaged.
    """
    if mode in ("onnx", "torch"):
        predict, properties = open_variant(mode, folder / mode)
        start, num_requests = start_in_thread(predict, ThreadPoolExecutor(1, "model")), 1
        _answer_once(start, properties.size_px, alone=True)
    else:
        graph = open_graph(folder / mode, mapped=False)
        properties, queue = properties_of(graph), GraphQueue(graph)
        start, num_requests = queue.start, queue.num_requests
        for alone in (True, False):
            _answer_once(start, properties.size_px, alone)
        queue.wait()
    boxes = load_boxes(folder)
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8")) if (folder / CARD_FILE).exists() else {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Model(name, version, mode, folder, properties, start, num_requests, boxes, card, now)


def _answer_once(start: Start, size_px: int, alone: bool) -> None:
    """So that the first request does not wait for what is prepared on first use, and a model that cannot is told."""
    answered: Future = Future()
    start(np.zeros((1, size_px, size_px), np.uint8), answered.set_result, alone)
    answer = answered.result(60)
    if isinstance(answer, Exception):
        raise answer
