"""The best checkpoint becomes one graph, and the graph is held against the network it came from."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from conf.errors import InputError
from inference.graphs import compile_graph, convert, open_graph, save_graph
from training.checkpoint import Checkpoint
from training.models import XrayClassifier

# Float32 sums in another order: 1e-5 was seen, the bounds leave room for deeper networks. A wrong layer exceeds them
# by orders of magnitude.
PROBABILITY_TOLERANCE = 1e-4
# Of the largest map value: maps are logits without a bound of their own.
MAP_TOLERANCE = 1e-3


class ProbabilitiesAndMaps(nn.Module):
    """The classifier as the graph shows it: `forward` gives probabilities and maps instead of logits."""

    def __init__(self, classifier: XrayClassifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier.probabilities_and_maps(pixels)


def export_graph(checkpoint: Checkpoint, folder: Path) -> float:
    """Writes the checkpoint's graph into `folder`, in FP32.

    Returns the largest difference of a probability between the written graph and torch. Raises InputError when the
    checkpoint's weights do not fit its network, RuntimeError when graph and torch differ by more than float rounding.
    """
    if checkpoint.channels != 1 or checkpoint.tabular:
        raise InputError(
            "the checkpoint's model takes colour or age, sex and view, and a graph takes grey images alone: train one "
            "on a table of radiographs without training.tabular"
        )
    classifier = checkpoint.build()
    save_graph(convert(ProbabilitiesAndMaps(classifier).eval(), checkpoint.size_px, lineage(checkpoint)), folder)
    return compare_with_torch(classifier, folder, checkpoint.size_px)


def lineage(checkpoint: Checkpoint) -> dict:
    """What the graph says of itself: its vocabulary, in the order of its outputs, its input, and where it came from."""
    return {
        "findings": checkpoint.findings,
        "exclusive": checkpoint.exclusive,
        "size_px": checkpoint.size_px,
        "network": checkpoint.model,
        "run_id": checkpoint.run_id,
        "delta_version": checkpoint.delta_version,
        "commit": checkpoint.commit,
    }


def compare_with_torch(classifier: XrayClassifier, folder: Path, size_px: int) -> float:
    """Largest difference of a probability between torch and the graph in `folder`; RuntimeError above the tolerances.

    Compared on noise, a ramp and black, three images: not the number that the conversion saw.
    """
    noise = np.random.default_rng(0).integers(0, 256, (size_px, size_px), dtype=np.uint8)
    ramp = np.linspace(0, 255, size_px * size_px).reshape(size_px, size_px).astype(np.uint8)
    pixels = np.stack([noise, ramp, np.zeros_like(ramp)])
    with torch.inference_mode():
        expected, expected_maps = (part.numpy() for part in classifier.probabilities_and_maps(torch.from_numpy(pixels)))
    probabilities, maps = compile_graph(open_graph(folder))(pixels)
    difference = float(np.abs(probabilities - expected).max())
    map_difference = float(np.abs(maps - expected_maps).max() / max(1.0, np.abs(expected_maps).max()))
    # Written so that NaN fails.
    if not (difference <= PROBABILITY_TOLERANCE and map_difference <= MAP_TOLERANCE):
        raise RuntimeError(
            f"the exported graph differs from torch by {difference:.2g} in a probability (at most "
            f"{PROBABILITY_TOLERANCE}) and {map_difference:.2g} of the largest map value (at most {MAP_TOLERANCE}): "
            "this network is not converted faithfully, choose another training.model"
        )
    return difference
