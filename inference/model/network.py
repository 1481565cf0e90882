"""The network as it is served: the trained classifier, its calibration and its familiarity in one torch module."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from conf.errors import InputError
from inference.model.graphs import Answer, Predict
from inference.model.properties import Properties
from training.network.checkpoint import UNREADABLE, Checkpoint
from training.network.models import XrayClassifier

FILE = "network.pt"


class ServedNetwork(nn.Module):
    """(batch, S, S) uint8 to the outputs of a graph (inference/model/graphs.py): probabilities, maps, distances."""

    def __init__(
        self,
        classifier: XrayClassifier,
        shifts: np.ndarray,
        temperatures: np.ndarray,
        centre: np.ndarray,
        whitening: np.ndarray,
    ):
        """shifts, temperatures: (findings,), see Calibration; centre, whitening: of the features, see Familiarity."""
        super().__init__()
        self.classifier = copy.deepcopy(classifier)
        if not classifier.exclusive:
            # Into the last layer: an operation of their own would be quantised, and the logits with it.
            last, scale = self.classifier.classifier, torch.from_numpy(np.asarray(temperatures, np.float32))
            last.weight.data /= scale[:, None]
            last.bias.data = (last.bias.data + torch.from_numpy(np.asarray(shifts, np.float32))) / scale
        for name, values in (
            ("shifts", shifts),
            ("temperatures", temperatures),
            ("centre", centre),
            ("whitening", whitening),
        ):
            self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float32)))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, maps = self.classifier.features_and_maps(pixels)
        logits = maps.mean(dim=(2, 3))
        if self.classifier.exclusive:
            # As training.loss.log_odds, which no other framework takes; infinite where float32 knows no doubt.
            logits = logits.log_softmax(dim=1) - torch.log1p(-logits.softmax(dim=1))
            logits = (logits + self.shifts) / self.temperatures
        distances = torch.linalg.vector_norm((features - self.centre) @ self.whitening, dim=1)
        return logits.sigmoid(), maps, distances


@dataclass(frozen=True)
class Served:
    """A network that is ready to be exported, with what its graphs say of themselves."""

    checkpoint: Checkpoint
    network: ServedNetwork
    """in evaluation mode, on the CPU"""
    properties: Properties

    def save(self, folder: Path) -> None:
        """Writes network.pt into `folder`, made where missing: with load_served, the network as torch computes it."""
        folder.mkdir(parents=True, exist_ok=True)
        buffers = dict(self.network.named_buffers(recurse=False))
        content = {"checkpoint": vars(self.checkpoint), "properties": self.properties.to_json(), "buffers": buffers}
        torch.save(content, folder / FILE)


def load_served(folder: Path) -> Served:
    """Reads what Served.save has written, running no code from it; raises InputError where it is absent or damaged."""
    if not (folder / FILE).exists():
        raise InputError(f"no network at {folder / FILE}: run `python inference/register.py` with this workspace first")
    try:
        content = torch.load(folder / FILE, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint(**content["checkpoint"])
        buffers = {name: buffer.numpy() for name, buffer in content["buffers"].items()}
    except UNREADABLE as error:
        raise InputError(
            f"{folder / FILE} is not a readable network ({error!r:.200}): run `python inference/register.py` again"
        ) from error
    network = ServedNetwork(checkpoint.build(), **buffers).eval()
    return Served(checkpoint, network, Properties.parse(content["properties"], str(folder / FILE)))


def torch_predict(network: ServedNetwork) -> Predict:
    """The network as it was trained, on the CPU, called as a graph is."""

    def predict(pixels: np.ndarray) -> Answer:
        with torch.inference_mode():
            return Answer(*(part.numpy() for part in network(torch.from_numpy(pixels))))

    return predict
