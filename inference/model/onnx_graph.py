"""The network as ONNX, for other runtimes. The one owner of onnx and onnxruntime. Opening a model needs no torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from conf.errors import InputError
from inference.model.graphs import INPUTS, OUTPUTS, PROPERTIES_KEY, Answer, Predict
from inference.model.properties import Properties

if TYPE_CHECKING:
    import onnx
    import torch

FILE = "model.onnx"
OPSET = 20
"""version of ONNX's default operator set; ONNX Runtime 1.17 (2024) and later can run it"""


def save_onnx(program: torch.export.ExportedProgram, folder: Path, properties: Properties) -> None:
    """Writes model.onnx into `folder`, which is created if missing; its inputs and outputs are those of a graph.

    ONNX's own checker checks the model before it is written.
    """
    # Imported here because opening a model does not need them.
    import onnx
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    # The exporter logs each of its steps.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        exported = torch.onnx.export(
            program,
            input_names=list(INPUTS[: 1 + bool(properties.attributes)]),
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = exported.model_proto
    onnx.helper.set_model_props(model, {PROPERTIES_KEY: properties.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / FILE)


def restate_onnx(
    source: Path, folder: Path, properties: Properties, rescaling: tuple[np.ndarray, np.ndarray] | None
) -> None:
    """Writes the model in `source` with these properties into `folder`.

    rescaling: scales and offsets, with which it gets the logits of graphs.rescale; None: it answers as before.
    """
    import onnx

    model = onnx.load(source / FILE)
    if rescaling:
        _rescale(model, *rescaling)
    onnx.helper.set_model_props(model, {PROPERTIES_KEY: properties.to_json()})
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / FILE)


def _rescale(model: onnx.ModelProto, scales: np.ndarray, offsets: np.ndarray) -> None:
    import onnx

    nodes = model.graph.node
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = ["maps_before" if name == "maps" else name for name in names]
    sigmoid = next(node for node in nodes if "probabilities" in node.output)
    assert sigmoid.op_type == "Sigmoid", f"probabilities come from {sigmoid.op_type}"
    for before, after, axes in (("maps_before", "maps", (1, -1, 1, 1)), (sigmoid.input[0], "logits_after", (1, -1))):
        for name, values in (("scale", scales), ("offset", offsets)):
            column = np.asarray(values, np.float32).reshape(axes)
            model.graph.initializer.append(onnx.numpy_helper.from_array(column, f"{after}_{name}"))
        place = next(place for place, node in enumerate(nodes) if before in node.output)
        moved = onnx.helper.make_node("Add", [f"{after}_scaled", f"{after}_offset"], [after])
        nodes.insert(place + 1, onnx.helper.make_node("Mul", [before, f"{after}_scale"], [f"{after}_scaled"]))
        nodes.insert(place + 2, moved)
    sigmoid.input[0] = "logits_after"


def open_onnx(folder: Path, num_threads: int = 0) -> onnxruntime.InferenceSession:
    """Opens the model in `folder` with ONNX Runtime on the CPU; raises InputError if it is missing or damaged.

    num_threads: 0 means all cores.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no other class
        raise InputError(
            f"{folder / FILE} is not a readable ONNX model ({error}): run `python inference/register.py` again"
        ) from error


def onnx_properties(session: onnxruntime.InferenceSession) -> Properties:
    """Reads the model's Properties; raises InputError for a foreign model."""
    return Properties.parse(session.get_modelmeta().custom_metadata_map.get(PROPERTIES_KEY, "null"), "the ONNX model")


def onnx_predict(session: onnxruntime.InferenceSession) -> Predict:
    """Returns a function from the model's inputs to its Answer."""

    def predict(*inputs: np.ndarray) -> Answer:
        return Answer(*session.run(list(OUTPUTS), dict(zip(INPUTS, inputs, strict=False))))

    return predict
