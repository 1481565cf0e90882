"""OpenVINO graphs: convert, save, open, compile. The one owner of openvino (beside pyfunc_model.py); no torch.

A graph is kept as a folder with model.xml and model.bin. It takes `pixels`, (batch, S, S) uint8, and gives

    probabilities   (batch, findings) float32, calibrated, 0..1
    maps            (batch, findings, s, s) float32, class activation maps in calibrated logits
    distances       (batch,) float32, 0 or more: how far the image is from the training data, see familiarity.py

It carries its Properties inside, so that a copied folder still knows what its outputs mean.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import openvino as ov

from conf.errors import InputError
from inference.model.properties import Properties

# One for the process, which never goes: the plugin that a Core loads sets the thread's signal stack, and the first of
# two that goes leaves the other's without memory, so that the next signal, such as Ctrl-C, would end the process.
CORE = ov.Core()
Graph, CompiledModel = ov.Model, ov.CompiledModel

FILE = "model.xml"
OUTPUTS = ("probabilities", "maps", "distances")
PROPERTIES_KEY = "chexscale"
# One request at a time over all cores. Without the precision, CPUs with AMX silently compute a FP32 graph in bf16 and
# ARM in fp16; what INT8 layers compute does not depend on it.
COMPILE_OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


class Answer(NamedTuple):
    """What a graph says of a batch; shapes as in the module's docstring. A baseline has probabilities alone."""

    probabilities: np.ndarray
    maps: np.ndarray | None = None
    distances: np.ndarray | None = None


Predict = Callable[[np.ndarray], Answer]


def convert(program, size_px: int, properties: Properties) -> Graph:
    """A torch.export program with the inputs and outputs of a graph as an OpenVINO graph, any batch size."""
    graph = ov.convert_model(program, input=[ov.PartialShape([-1, size_px, size_px])])
    graph.inputs[0].tensor.set_names({"pixels"})
    for output, name in zip(graph.outputs, OUTPUTS, strict=True):
        output.tensor.set_names({name})
    return with_properties(graph, properties)


def with_properties(graph: Graph, properties: Properties) -> Graph:
    """The same graph, which now says `properties` of itself."""
    graph.set_rt_info(properties.to_json(), PROPERTIES_KEY)
    return graph


def with_distance_threshold(graph: Graph, threshold: float) -> Graph:
    """The same graph with this threshold: quantisation moves the distances, so each graph has its own."""
    return with_properties(graph, replace(properties_of(graph), distance_threshold=threshold))


def save_graph(graph: Graph, folder: Path, *, fp16: bool = False) -> None:
    """Writes model.xml and model.bin into `folder`, made where missing.

    fp16: weights in half precision, which are computed with in single; otherwise they keep theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(graph, folder / FILE, compress_to_fp16=fp16)


def open_graph(folder: Path, *, mapped: bool = True) -> Graph:
    """Reads a graph; raises InputError where there is none or its files are damaged.

    mapped: whether the weights stay in the file and are read when they are needed; otherwise the file may change.
    """
    if not (folder / FILE).exists():
        raise InputError(f"no graph at {folder / FILE}: run `python inference/register.py` with this workspace first")
    try:
        return CORE.read_model(folder / FILE, config={"ENABLE_MMAP": mapped})
    except RuntimeError as error:
        raise InputError(
            f"{folder / FILE} is not a readable graph ({error}): run `python inference/register.py` again"
        ) from error


def properties_of(graph: Graph) -> Properties:
    """What the graph says of itself; it survives saving and quantising. Raises InputError for a foreign graph."""
    if not graph.has_rt_info([PROPERTIES_KEY]):
        raise InputError("this OpenVINO graph is not one of CheXScale's: give one that inference/register.py has made")
    return Properties.parse(graph.get_rt_info([PROPERTIES_KEY]).value, "the graph")


def compile_graph(graph: Graph, num_threads: int = 0) -> Predict:
    """A function from pixels, (batch, S, S) uint8, to the graph's Answer, on the CPU; for one thread at a time.

    num_threads: 0: all cores.
    """
    # Who asks for few has other processes beside this one: pinned, all of them would share the first cores.
    threads = {"INFERENCE_NUM_THREADS": num_threads, "ENABLE_CPU_PINNING": False} if num_threads else {}
    return predict_with(CORE.compile_model(graph, "CPU", COMPILE_OPTIONS | threads))


def predict_with(compiled: CompiledModel) -> Predict:
    """The function of a graph that is compiled already."""

    def predict(pixels: np.ndarray) -> Answer:
        outputs = compiled(pixels)
        return Answer(*(outputs[name] for name in OUTPUTS))

    return predict


class SharedGraph:
    """One graph for several threads at a time, over all cores together.

    OpenVINO's own queue would do without them, but tells nobody of a batch that fails, and keeps for ever what it has
    last called.
    """

    def __init__(self, graph: Graph):
        many = CORE.compile_model(graph, "CPU", COMPILE_OPTIONS | {"PERFORMANCE_HINT": "THROUGHPUT"})
        one = CORE.compile_model(graph, "CPU", COMPILE_OPTIONS)
        self.num_requests = many.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        """batches that are computed side by side; one more would wait"""
        self._many, self._one = SimpleQueue(), SimpleQueue()
        for _ in range(self.num_requests):
            self._many.put(many.create_infer_request())
        self._one.put(one.create_infer_request())

    def predict(self, pixels: np.ndarray, alone: bool = False) -> Answer:
        """pixels: (batch, S, S) uint8. alone: whether no other work wants the cores, so that all may compute these."""
        requests = self._one if alone and not self._one.empty() else self._many
        request = requests.get()
        try:
            outputs = request.infer({0: pixels})
        finally:
            requests.put(request)
        return Answer(*(outputs[name] for name in OUTPUTS))


def convolutions(graph: Graph) -> dict[str, bool]:
    """Name of each convolution -> whether the CPU computes it on 8-bit inputs, after its own fusions and fallbacks."""
    runtime = CORE.compile_model(graph, "CPU", COMPILE_OPTIONS).get_runtime_model()
    layers = [operation.get_rt_info() for operation in runtime.get_ops()]
    return {
        layer["originalLayersNames"].astype(str).partition(",")[0]: layer["runtimePrecision"].astype(str)
        in ("i8", "u8")
        for layer in layers
        if layer["layerType"].astype(str) == "Convolution"
    }
