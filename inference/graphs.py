"""OpenVINO graphs: convert, save, open, compile, quantise. The one owner of openvino and nncf (beside pyfunc_model.py).

A graph is kept as a folder with model.xml and model.bin. It takes `pixels`, (batch, S, S) uint8, and gives
`probabilities`, (batch, findings) float32, and `maps`, (batch, findings, s, s) float32. It carries its vocabulary and
lineage inside, so that a copied folder still knows what its outputs mean.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import nncf
import numpy as np
import openvino as ov
import torch
from torch import nn

from conf.errors import InputError

Graph = ov.Model
Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

FILE = "model.xml"
PROPERTIES_KEY = "chexscale"
# One request at a time over all cores. Without the precision, CPUs with AMX silently compute a FP32 graph in bf16 and
# ARM in fp16; what INT8 layers compute does not depend on it.
COMPILE_OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def convert(module: nn.Module, size_px: int, properties: dict) -> Graph:
    """A torch module with the inputs and outputs of a graph (module docstring) as an OpenVINO graph, any batch size.

    module: in evaluation mode, on the CPU; its forward has one argument, `pixels`. properties: what JSON can hold.
    """
    # Two images: a batch of one would be taken for a constant.
    example = torch.zeros(2, size_px, size_px, dtype=torch.uint8)
    batch = {"pixels": {0: torch.export.Dim("batch")}}
    program = torch.export.export(module, (example,), dynamic_shapes=batch)
    graph = ov.convert_model(program, input=[ov.PartialShape([-1, size_px, size_px])])
    graph.inputs[0].tensor.set_names({"pixels"})
    for output, name in zip(graph.outputs, ("probabilities", "maps"), strict=True):
        output.tensor.set_names({name})
    graph.set_rt_info(json.dumps(properties), PROPERTIES_KEY)
    return graph


def save_graph(graph: Graph, folder: Path) -> None:
    """Writes model.xml and model.bin into `folder`, made where missing; weights keep their precision."""
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(graph, folder / FILE, compress_to_fp16=False)


def open_graph(folder: Path) -> Graph:
    """Reads a graph; raises InputError where there is none or its files are damaged."""
    if not (folder / FILE).exists():
        raise InputError(f"no graph at {folder / FILE}: run `python inference/register.py` with this workspace first")
    try:
        return ov.Core().read_model(folder / FILE)
    except RuntimeError as error:
        raise InputError(
            f"{folder / FILE} is not a readable graph ({error}): run `python inference/register.py` again"
        ) from error


def properties_of(graph: Graph) -> dict:
    """The properties given to `convert`; they survive saving and quantising."""
    return json.loads(graph.get_rt_info([PROPERTIES_KEY]).value)


def compile_graph(graph: Graph) -> Predict:
    """A function from pixels, (batch, S, S) uint8, to probabilities and maps, on the CPU with all its cores."""
    compiled = ov.Core().compile_model(graph, "CPU", COMPILE_OPTIONS)

    def predict(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = compiled(pixels)
        return outputs["probabilities"], outputs["maps"]

    return predict


def quantize_graph(graph: Graph, images: Iterable[np.ndarray], num_images: int) -> Graph:
    """An INT8 copy of a graph: weights symmetric, activations symmetric or not, whichever fits (NNCF's MIXED preset).

    images: single images of the training data, each (1, S, S) uint8; the ranges of the activations come from them.
    num_images: how many there are.
    """
    dataset = nncf.Dataset(images)
    return nncf.quantize(graph, dataset, preset=nncf.QuantizationPreset.MIXED, subset_size=num_images)


def num_int8_layers(graph: Graph) -> int:
    """Convolutions that the CPU computes on 8-bit inputs, after its own fusions and fallbacks."""
    runtime = ov.Core().compile_model(graph, "CPU", COMPILE_OPTIONS).get_runtime_model()
    layers = [operation.get_rt_info() for operation in runtime.get_ops()]
    return sum(
        layer["layerType"].astype(str) == "Convolution" and layer["runtimePrecision"].astype(str) in ("i8", "u8")
        for layer in layers
    )
