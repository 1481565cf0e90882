"""The same model in several forms, opened and called alike; each imports what it needs and no more."""

from pathlib import Path

from conf.errors import InputError
from conf.settings import MODES
from inference.model.graphs import Predict, compile_graph, open_graph, properties_of
from inference.model.properties import Properties


def open_variant(mode: str, folder: Path, num_threads: int = 0) -> tuple[Predict, Properties]:
    """The variant `mode` in `folder`, for one thread at a time, and what it says of itself.

    num_threads: 0: all cores. Raises InputError for another mode, where there is no such variant, and where what
    computes it is not installed.
    """
    try:
        return _open_variant(mode, folder, num_threads)
    except ModuleNotFoundError as error:
        raise InputError(
            f"mode {mode} needs {error.name}, which is not installed: `pip install '.[training,inference]'`, or take "
            "int8, fp16 or fp32"
        ) from error


def _open_variant(mode: str, folder: Path, num_threads: int) -> tuple[Predict, Properties]:
    if mode == "torch":
        import torch

        from inference.model.network import load_served, torch_predict

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
