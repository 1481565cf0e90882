"""Graphs of lung networks: converts, saves, calls them. etl/contract/images/lungs/graph.py opens them for the crop."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import torch

from conf.writing import write_json
from etl.contract.images.lungs.files import ABOUT, FORMAT, GRAPH, digest_of
from inference.model.graphs import COMPILE_OPTIONS, CORE, Graph
from training.network.lung_network import LungNetwork


def convert_lungs(network: LungNetwork, size_px: int) -> Graph:
    """The network as a graph: `pixels`, (batch, S, S) uint8, to `lungs`, logits (batch, S, S) float32."""
    # Two films, because torch.export would take a batch size of one for a constant.
    example = (torch.zeros(2, size_px, size_px, dtype=torch.uint8),)
    program = torch.export.export(network, example, dynamic_shapes=[{0: torch.export.Dim("batch")}])
    graph = ov.convert_model(program, input=[ov.PartialShape([-1, size_px, size_px])])
    graph.inputs[0].tensor.set_names({"pixels"})
    graph.outputs[0].tensor.set_names({"lungs"})
    return graph


def save_lungs(graph: Graph, folder: Path, about: dict) -> dict:
    """Writes the graph and lungs.json into a folder; returns what lungs.json holds. about: its fields, but for those of
    the files."""
    ov.save_model(graph, folder / GRAPH, compress_to_fp16=False)
    described = {"format": FORMAT, "sha256": digest_of(folder), **about}
    write_json(folder / ABOUT, described)
    return described


def predict_lungs(graph: Graph) -> Callable[[np.ndarray], np.ndarray]:
    """A function from films, (batch, S, S) uint8, to logits of the same shape; for one thread at a time."""
    compiled = CORE.compile_model(graph, "CPU", COMPILE_OPTIONS)
    return lambda pixels: compiled([pixels])["lungs"]
