"""The network as ONNX, for other runtimes; the one owner of onnx and onnxruntime. Opening one needs no torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from conf.errors import InputError
from inference.model.graphs import OUTPUTS, PROPERTIES_KEY, Answer, Predict
from inference.model.properties import Properties

if TYPE_CHECKING:
    import torch

FILE = "model.onnx"
OPSET = 20
"""of ONNX's default domain; read by ONNX Runtime 1.17 (2024) and later"""


def save_onnx(program: torch.export.ExportedProgram, folder: Path, properties: Properties) -> None:
    """Writes model.onnx into `folder`, made where missing, checked by ONNX; input and outputs are those of a graph."""
    # Here, because who opens one has no need of them.
    import onnx
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    # Its exporter tells each of its steps.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        exported = torch.onnx.export(
            program,
            input_names=["pixels"],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = exported.model_proto
    onnx.helper.set_model_props(model, {PROPERTIES_KEY: properties.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / FILE)


def open_onnx(folder: Path, num_threads: int = 0) -> onnxruntime.InferenceSession:
    """The model in `folder`, by ONNX Runtime on the CPU; raises InputError where there is none or it is damaged.

    num_threads: 0: all cores.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common class but this
        raise InputError(
            f"{folder / FILE} is not a readable ONNX model ({error}): run `python inference/register.py` again"
        ) from error


def onnx_properties(session: onnxruntime.InferenceSession) -> Properties:
    """What the model says of itself; raises InputError for a foreign one."""
    return Properties.parse(session.get_modelmeta().custom_metadata_map.get(PROPERTIES_KEY, "null"), "the ONNX model")


def onnx_predict(session: onnxruntime.InferenceSession) -> Predict:
    """A function from pixels, (batch, S, S) uint8, to the model's Answer."""

    def predict(pixels: np.ndarray) -> Answer:
        return Answer(*session.run(list(OUTPUTS), {"pixels": pixels}))

    return predict
