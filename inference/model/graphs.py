"""Converts, saves, opens and compiles OpenVINO graphs. The one owner of openvino, beside pyfunc_model.py; no torch.

A graph is stored as a folder with model.xml and model.bin. Its input is `pixels`, (batch, S, S) or (batch, S, S, 3)
uint8; the graph of a network with a branch for age, sex and view has a second one, `attributes`, (batch, 3) float32
(see inputs.py). Its outputs are

    probabilities   (batch, findings) float32, calibrated, 0..1
    maps            (batch, findings, s, s) float32, class activation maps in calibrated logits
    distances       (batch,) float32, 0 or more: how far the image is from the training data, see familiarity.py

The graph carries its Properties inside, so a copied folder still says what the outputs mean.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from conf.errors import InputError
from inference.model.properties import ATTRIBUTES, Properties

# One Core for the whole process, never destroyed. The plugin that a Core loads sets the thread's signal stack. When one
# of two Cores is destroyed, the other's signal stack loses its memory, and the next signal, such as Ctrl-C, would end
# the process.
CORE = ov.Core()
Graph, Node, CompiledModel = ov.Model, ov.Node, ov.CompiledModel

FILE = "model.xml"
INPUTS = ("pixels", "attributes")
"""the second one only where Properties.attributes describes it"""
OUTPUTS = ("probabilities", "maps", "distances")
PROPERTIES_KEY = "chexscale"
# One request at a time, on all cores. Without the precision hint, CPUs with AMX silently compute an FP32 graph in bf16,
# and ARM CPUs in fp16. The hint does not change what INT8 layers compute.
COMPILE_OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


class Answer(NamedTuple):
    """A graph's outputs for one batch, shaped as in the module's docstring. A baseline has only probabilities."""

    probabilities: np.ndarray
    maps: np.ndarray | None = None
    distances: np.ndarray | None = None


Predict = Callable[..., Answer]
"""a function from a graph's inputs (see Inputs), each an argument of its own, to its Answer"""


def convert(program, properties: Properties) -> Graph:
    """Converts a torch.export program that has a graph's inputs and outputs; the result takes any batch size."""
    shapes = [properties.image_shape, (len(ATTRIBUTES),)][: 1 + bool(properties.attributes)]
    graph = ov.convert_model(program, input=[ov.PartialShape([-1, *shape]) for shape in shapes])
    for port, name in zip(graph.inputs, INPUTS, strict=False):
        port.tensor.set_names({name})
    for output, name in zip(graph.outputs, OUTPUTS, strict=True):
        output.tensor.set_names({name})
    return with_properties(graph, properties)


def with_properties(graph: Graph, properties: Properties) -> Graph:
    """Stores `properties` in the graph and returns it."""
    graph.set_rt_info(properties.to_json(), PROPERTIES_KEY)
    return graph


def with_distance_threshold(graph: Graph, threshold: float) -> Graph:
    """Stores this threshold in the graph and returns it; quantisation moves distances, so each graph has its own."""
    return with_properties(graph, replace(properties_of(graph), distance_threshold=threshold))


def rescale(graph: Graph, scales: np.ndarray, offsets: np.ndarray) -> Graph:
    """Makes the logits `scale * logit + offset`, and each place of the maps the same; returns the graph.

    scales, offsets: (findings,). It changes nothing before the maps, and not the distances. The graph's probabilities
    must be the sigmoid of its logits, as all but those of classes are.
    """
    result, sigmoid = (
        graph.output("maps").get_node(),
        graph.output("probabilities").get_node().input_value(0).get_node(),
    )
    assert sigmoid.get_type_name() == "Sigmoid", f"probabilities come from {sigmoid.get_type_name()}"
    maps = result.input_value(0)
    names = maps.get_names()
    maps.set_names(set())
    factors, terms = (np.asarray(values, np.float32) for values in (scales, offsets))
    # A product with a diagonal matrix: OpenVINO 2026.4's CPU plugin fuses a factor per finding into the mean before it,
    # and then multiplies all findings by the first factor.
    scaled = opset.matmul(sigmoid.input_value(0), opset.constant(np.diag(factors)), False, False)
    sigmoid.input(0).replace_source_output(opset.add(scaled, opset.constant(terms[None])).output(0))
    factors, terms = (opset.constant(values.reshape(1, -1, 1, 1)) for values in (factors, terms))
    rescaled = opset.add(opset.multiply(maps, factors), terms).output(0)
    result.input(0).replace_source_output(rescaled)
    rescaled.set_names(names)
    graph.validate_nodes_and_infer_types()
    return graph


def save_graph(graph: Graph, folder: Path, *, fp16: bool = False) -> None:
    """Writes model.xml and model.bin into `folder`, which is created if missing.

    fp16: store the weights in half precision (computations stay in single precision); otherwise they keep theirs.
    Raises InputError if the files cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        ov.save_model(graph, folder / FILE, compress_to_fp16=fp16)
    except RuntimeError as error:
        # How OpenVINO reports a full disk.
        if "iostream" not in str(error):
            raise
        raise InputError(
            f"{folder / FILE} cannot be written ({error}): check the free space and the permissions there, and run the "
            "same command again"
        ) from error


def open_graph(folder: Path, *, mapped: bool = True) -> Graph:
    """Reads a graph; raises InputError if there is none or its files are damaged.

    mapped: keep the weights in the file and read them when needed; otherwise the file may change afterwards.
    """
    if not (folder / FILE).exists():
        raise InputError(f"no graph at {folder / FILE}: run `python inference/register.py` with this workspace first")
    try:
        # Not as a Path: Ctrl-C in the middle of its conversion would look like a damaged graph.
        return CORE.read_model(str(folder / FILE), config={"ENABLE_MMAP": mapped})
    except RuntimeError as error:
        raise InputError(
            f"{folder / FILE} is not a readable graph ({error}): run `python inference/register.py` again"
        ) from error


def properties_of(graph: Graph) -> Properties:
    """Reads the graph's Properties, which survive saving and quantising. Raises InputError for a foreign graph."""
    if not graph.has_rt_info([PROPERTIES_KEY]):
        raise InputError("this OpenVINO graph was not made by CheXScale: use one that inference/register.py exported")
    return Properties.parse(graph.get_rt_info([PROPERTIES_KEY]).value, "the graph")


def signature_of(graph: Graph) -> dict:
    """The graph's inputs and outputs for JSON, as lists of name, dtype (NumPy's) and shape, in which -1 is any size."""

    def tensor(port) -> dict:
        shape = [axis.get_length() if axis.is_static else -1 for axis in port.partial_shape]
        return {"name": port.any_name, "dtype": np.dtype(port.element_type.to_dtype()).name, "shape": shape}

    return {"inputs": [tensor(port) for port in graph.inputs], "outputs": [tensor(port) for port in graph.outputs]}


def compile_graph(graph: Graph, num_threads: int = 0) -> Predict:
    """Compiles the graph for the CPU; returns a function from its inputs to the Answer.

    Only one thread at a time may call that function. num_threads: 0 means all cores.
    """
    # A caller that asks for few threads runs beside other processes; pinned, all of them would share the first cores.
    threads = {"INFERENCE_NUM_THREADS": num_threads, "ENABLE_CPU_PINNING": False} if num_threads else {}
    return predict_with(CORE.compile_model(graph, "CPU", COMPILE_OPTIONS | threads))


def predict_with(compiled: CompiledModel) -> Predict:
    """Returns the function of compile_graph for a graph that is already compiled."""

    def predict(*inputs: np.ndarray) -> Answer:
        outputs = compiled(inputs)
        return Answer(*(outputs[name] for name in OUTPUTS))

    return predict


class SharedGraph:
    """One graph that several threads may call at a time; together they use all cores.

    OpenVINO's own queue would need no threads, but it does not report a batch that fails, and it keeps its last
    callback alive for ever.
    """

    def __init__(self, graph: Graph):
        many = CORE.compile_model(graph, "CPU", COMPILE_OPTIONS | {"PERFORMANCE_HINT": "THROUGHPUT"})
        one = CORE.compile_model(graph, "CPU", COMPILE_OPTIONS)
        self.num_requests = many.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        """number of batches that are computed side by side; one more would wait"""
        self._many, self._one = SimpleQueue(), SimpleQueue()
        for _ in range(self.num_requests):
            self._many.put(many.create_infer_request())
        self._one.put(one.create_infer_request())

    def predict(self, *inputs: np.ndarray, alone: bool = False) -> Answer:
        """Computes one batch. inputs: see Inputs; alone: nothing else needs the cores, so it may use all."""
        requests = self._one if alone and not self._one.empty() else self._many
        request = requests.get()
        try:
            outputs = request.infer(inputs)
        finally:
            requests.put(request)
        return Answer(*(outputs[name] for name in OUTPUTS))


def convolutions(graph: Graph) -> dict[str, bool]:
    """Maps each convolution's name to whether the CPU computes it on 8-bit inputs, after its fusions and fallbacks."""
    runtime = CORE.compile_model(graph, "CPU", COMPILE_OPTIONS).get_runtime_model()
    layers = [operation.get_rt_info() for operation in runtime.get_ops()]
    return {
        layer["originalLayersNames"].astype(str).partition(",")[0]: layer["runtimePrecision"].astype(str)
        in ("i8", "u8")
        for layer in layers
        if layer["layerType"].astype(str) == "Convolution"
    }
