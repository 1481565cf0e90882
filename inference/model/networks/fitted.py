"""Networks that are ready for export, and their files."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from conf.errors import InputError
from inference.model.graphs import Answer, Predict
from inference.model.networks.ensemble import CALIBRATION, ServedEnsemble, build_ensemble
from inference.model.networks.served import ServedNetwork
from inference.model.properties import Properties
from training.network.checkpoint import UNREADABLE, Checkpoint

FILE = "network.pt"
CPU = torch.device("cpu")
Served = ServedNetwork | ServedEnsemble


@dataclass(frozen=True)
class FittedModel:
    """A network, or several as one, that is ready for export, with the properties that its graphs will carry."""

    checkpoint: Checkpoint
    network: Served
    """in evaluation mode, on the CPU"""
    properties: Properties

    def rescaled(self, properties: Properties) -> "FittedModel":
        """The same network with the shifts and temperatures of other properties."""
        calibration = {name: np.array(getattr(properties, name)) for name in CALIBRATION}
        return FittedModel(
            self.checkpoint, build_served(self.checkpoint, self.network.fitted() | calibration), properties
        )

    def save(self, folder: Path) -> None:
        """Writes the torch network to network.pt in `folder`, which is created if missing; load_served reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "checkpoint": vars(self.checkpoint),
            "properties": self.properties.to_json(),
            "fitted": self.network.fitted(),
        }
        torch.save(content, folder / FILE)


def build_served(checkpoint: Checkpoint, fitted: dict) -> Served:
    """The checkpoint's network in evaluation mode. fitted: what `fitted` of such a network returns."""
    return (build_ensemble if checkpoint.members else _build_network)(checkpoint, fitted).eval()


def _build_network(checkpoint: Checkpoint, fitted: dict) -> ServedNetwork:
    return ServedNetwork(checkpoint.build(), **fitted)


def load_served(folder: Path) -> FittedModel:
    """Reads what FittedModel.save wrote, without running code from it; raises InputError if it is absent or damaged."""
    if not (folder / FILE).exists():
        raise InputError(f"no network at {folder / FILE}: run `python inference/register.py` with this workspace first")
    try:
        content = torch.load(folder / FILE, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint(**content["checkpoint"])
        # Older releases called it `buffers`.
        network = build_served(checkpoint, content["fitted"] if "fitted" in content else content["buffers"])
    except UNREADABLE as error:
        raise InputError(
            f"{folder / FILE} is not a readable network ({error!r:.200}): run `python inference/register.py` again"
        ) from error
    return FittedModel(checkpoint, network, Properties.parse(content["properties"], str(folder / FILE)))


def torch_predict(network: Served, device: torch.device = CPU) -> Predict:
    """Returns a function like compile_graph's that runs the network in torch, in single precision.

    device: cpu or cuda; the given network stays on the CPU.
    """
    if device.type != "cpu":
        network = copy.deepcopy(network).to(device)
        # A convolution would otherwise round its inputs to 10 bits where the GPU can (TF32).
        torch.backends.cudnn.allow_tf32 = False

    def predict(*inputs: np.ndarray) -> Answer:
        with torch.inference_mode():
            answers = network(*(torch.from_numpy(part).to(device) for part in inputs))
            return Answer(*(part.cpu().numpy() for part in answers))

    return predict
