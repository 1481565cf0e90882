"""A model, opened to answer many requests at a time."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from inference.film.known_boxes import load_boxes
from inference.model.graphs import SharedGraph, open_graph, properties_of
from inference.model.inputs import without_films
from inference.model.model_files import ModelFiles
from inference.model.properties import CARD_FILE, Properties
from inference.model.reference import difference_here
from inference.model.variants import open_variant
from inference.service.engine.batching import Compute


@dataclass(frozen=True)
class OpenModel:
    """One version, with everything that the service reports about it."""

    files: ModelFiles
    mode: str
    properties: Properties
    compute: Compute
    num_requests: int
    """number of threads that may call `compute` at a time"""
    boxes: dict[str, list[list[float]]]
    """known boxes, see inference/film/known_boxes.py"""
    card: dict
    differs: str
    """what difference_here says of the model on this machine"""
    loaded_at: str
    """UTC, ISO 8601"""

    @property
    def identity(self) -> dict:
        """Returns the fields by which every answer names the model."""
        return {"name": self.files.name, "version": self.files.version, "mode": self.mode}

    @cached_property
    def properties_json(self) -> str:
        return self.properties.to_json()


def open_model(files: ModelFiles, mode: str) -> OpenModel:
    """Opens the variant `mode` of a model, and lets it answer once.

    Afterwards the files may be changed or deleted, but for those of a lung network, which the decoders open. Raises
    InputError if the variant is missing or damaged.
    """
    if mode in ("onnx", "torch"):
        predict, properties = open_variant(mode, files.variant(mode))
        # Such a model uses all cores, whether it is alone or not.
        compute, num_requests = (lambda *inputs, alone: predict(*inputs)), 1
    else:
        graph = open_graph(files.variant(mode), mapped=False)
        properties, shared = properties_of(graph).at(files.folder), SharedGraph(graph)
        compute, num_requests = shared.predict, shared.num_requests
    # So that the first request does not wait for preparations on first use, and a model that cannot answer fails here.
    for alone in (True, False):
        compute(*without_films(properties, 1), alone=alone)
    differs = difference_here(
        files.folder, mode, lambda *inputs: compute(*inputs, alone=True), properties.findings, "--serving.mode"
    )
    boxes, about = load_boxes(files.folder), files.folder / CARD_FILE
    card = json.loads(about.read_text(encoding="utf-8")) if about.exists() else {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return OpenModel(files, mode, properties, compute, num_requests, boxes, card, differs, now)
