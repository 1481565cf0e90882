"""The same model in several forms, opened and called alike. Each form imports only what it needs."""

from pathlib import Path

from conf.errors import InputError
from conf.settings import MODES
from inference.model.graphs import Predict, compile_graph, open_graph, properties_of
from inference.model.properties import Properties


def open_variant(mode: str, folder: Path, num_threads: int = 0) -> tuple[Predict, Properties]:
    """Opens the variant `mode` in `folder`; returns its predict function, for one thread at a time, and its Properties.

    num_threads: 0 means all cores. Raises InputError if the mode is unknown, if there is no such variant, or if the
    library that runs it is not installed.
    """
    try:
        predict, properties = _open_variant(mode, folder, num_threads)
    except ModuleNotFoundError as error:
        raise InputError(
            f"mode {mode} needs {error.name}, which is not installed: `pip install '.[training,inference]'`, or use "
            "int8, fp16 or fp32"
        ) from error
    return predict, properties.at(folder.parent)


def _open_variant(mode: str, folder: Path, num_threads: int) -> tuple[Predict, Properties]:
    if mode == "torch":
        import torch

        from inference.model.networks.fitted import load_served, torch_predict

        if num_threads:
            torch.set_num_threads(num_threads)
        served = load_served(folder)
        return torch_predict(served.network), served.properties
    if mode == "onnx":
        from inference.model.onnx_graph import onnx_predict, onnx_properties, open_onnx

        session = open_onnx(folder, num_threads)
        return onnx_predict(session), onnx_properties(session)
    if mode not in MODES:
        raise InputError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
    graph = open_graph(folder)
    return compile_graph(graph, num_threads), properties_of(graph)
