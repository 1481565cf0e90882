"""Exports the served network to graphs and compares each graph with the network it came from."""

from pathlib import Path

import numpy as np
import torch

from inference.model.graphs import Predict, convert, save_graph
from inference.model.inputs import Inputs, without_films
from inference.model.networks.fitted import FittedModel, torch_predict
from inference.model.networks.served import ServedNetwork
from inference.model.onnx_graph import save_onnx
from inference.model.properties import Properties
from inference.model.variants import open_variant

# Largest accepted difference of a probability, and of a map or a distance as a share of its largest value. Summing
# float32 in another order changes results by 1e-5, and half-precision weights by 1e-3. A wrong layer exceeds the
# tolerances by orders of magnitude.
TOLERANCES = {"fp32": (1e-4, 1e-3), "fp16": (1e-2, 2e-2), "onnx": (1e-4, 1e-3)}


def export_graphs(served: FittedModel, folder: Path, inputs: Inputs) -> dict[str, float]:
    """Writes fp32/ and fp16/ (OpenVINO), onnx/ and torch/ into `folder`.

    Returns the largest difference between each graph's probabilities and torch's.
    inputs: those of real images; two synthetic ones are added.
    Raises RuntimeError if a written graph differs from torch by more than its TOLERANCES.
    """
    # Two images, because torch.export would take a batch size of one for a constant.
    example = tuple(map(torch.from_numpy, without_films(served.properties, 2)))
    batch = torch.export.Dim("batch")
    program = torch.export.export(served.network, example, dynamic_shapes=[{0: batch}] * len(example))
    graph = convert(program, served.properties)
    save_graph(graph, folder / "fp32")
    save_graph(graph, folder / "fp16", fp16=True)
    save_onnx(program, folder / "onnx", served.properties)
    served.save(folder / "torch")
    inputs = tuple(map(np.concatenate, zip(inputs, _synthetic(served.properties), strict=True)))
    written = open_exported(folder)
    return {name: compare_with_torch(served.network, name, predict, inputs) for name, predict in written.items()}


def open_exported(folder: Path) -> dict[str, Predict]:
    """Opens the graphs that export_graphs wrote beside torch/: name -> graph."""
    return {name: open_variant(name, folder / name)[0] for name in TOLERANCES}


def compare_with_torch(network: ServedNetwork, name: str, predict: Predict, inputs: Inputs) -> float:
    """Returns the largest difference in probability between torch and a graph. Raises RuntimeError above TOLERANCES."""
    expected, got = torch_predict(network)(*inputs), predict(*inputs)
    most, share = TOLERANCES[name]
    difference = float(np.abs(got.probabilities - expected.probabilities).max())
    shares = [
        float(np.abs(one - other).max() / max(1.0, np.abs(other).max()))
        for one, other in ((got.maps, expected.maps), (got.distances, expected.distances))
    ]
    # Written so that NaN fails.
    if not (difference <= most and max(shares) <= share):
        raise RuntimeError(
            f"the exported {name} graph differs from torch by {difference:.2g} in a probability (allowed: {most}), "
            f"{shares[0]:.2g} of the largest map value and {shares[1]:.2g} of the largest distance (allowed: {share}): "
            "the conversion of this network is not faithful, choose another training.model"
        )
    return difference


def _synthetic(properties: Properties) -> Inputs:
    """Returns an image of noise and a black one; of both patients nothing is known."""
    inputs = without_films(properties, 2)
    inputs[0][0] = np.random.default_rng(0).integers(0, 256, properties.image_shape, dtype=np.uint8)
    return inputs
