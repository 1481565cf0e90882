"""Writes a form of a model anew with other properties and, if asked for, with scaled and shifted logits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from inference.model.graphs import open_graph, properties_of, rescale, save_graph, with_properties
from inference.model.properties import Properties


def write_restated(
    mode: str,
    source: Path,
    folder: Path,
    change: Callable[[Properties], Properties],
    rescaling: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Writes the form `mode` of a model, which lies in `source`, into `folder`, another one.

    change: from the form's properties to its new ones; with a rescaling, it must change shifts and temperatures too.
    rescaling: scale and offset of each finding's logits, see graphs.rescale; None: the answers stay.
    """
    if mode == "torch":
        from inference.model.networks.fitted import load_served

        served = load_served(source)
        properties = change(served.properties)
        (served.rescaled(properties) if rescaling else replace(served, properties=properties)).save(folder)
    elif mode == "onnx":
        from inference.model.onnx_graph import onnx_properties, open_onnx, restate_onnx

        restate_onnx(source, folder, change(onnx_properties(open_onnx(source))), rescaling)
    else:
        # Not mapped, because the folder may take the place of the source.
        graph = open_graph(source, mapped=False)
        properties = change(properties_of(graph))
        graph = rescale(graph, *rescaling) if rescaling else graph
        save_graph(with_properties(graph, properties), folder, fp16=mode == "fp16")
