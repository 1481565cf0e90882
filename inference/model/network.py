"""The network as it is served: the trained classifier, its calibration and its familiarity as one torch module."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from conf.errors import InputError
from conf.words import SEXES, VIEWS
from inference.model.graphs import Answer, Predict
from inference.model.properties import Properties
from training.network.checkpoint import UNREADABLE, Checkpoint
from training.network.models import AGE_CENTRE_YEARS, AGE_SCALE_YEARS, XrayClassifier, pool

FILE = "network.pt"
FITTED = ("shifts", "temperatures", "centre", "whitening")
"""what was fitted to the trained classifier, of the arguments of ServedNetwork"""
CPU = torch.device("cpu")


class ServedNetwork(nn.Module):
    """A graph's inputs to its outputs (inference/model/graphs.py): probabilities, maps, distances."""

    def __init__(
        self,
        classifier: XrayClassifier,
        shifts: np.ndarray,
        temperatures: np.ndarray,
        centre: np.ndarray,
        whitening: np.ndarray,
    ):
        """shifts, temperatures: (findings,), see Calibration; centre, whitening: for the features, see Familiarity."""
        super().__init__()
        self.classifier = copy.deepcopy(classifier)
        for name, values in zip(FITTED, (shifts, temperatures, centre, whitening), strict=True):
            self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float32)))
        # (findings,). Calibrated maps are flatter by the temperature, and their pooling makes up for it.
        sharpness = torch.full((len(self.shifts),), float(classifier.sharpness))
        if not classifier.exclusive:
            # Folded into the last layer: a separate operation would be quantised, and the logits with it.
            last, scale = self.classifier.classifier, self.temperatures
            last.weight.data /= scale[:, None]
            last.bias.data = (last.bias.data + self.shifts) / scale
            sharpness *= scale
        self.register_buffer("sharpness", sharpness)

    def forward(self, pixels: Tensor, attributes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        encoded = None if attributes is None else encode_codes(attributes)
        features, maps = self.classifier.features_and_maps(pixels, encoded)
        logits = pool(maps, self.sharpness if self.classifier.sharpness else 0.0)
        if self.classifier.exclusive:
            # As training.loop.loss.log_odds, which other frameworks cannot run; infinite where the softmax rounds to 1.
            logits = logits.log_softmax(dim=1) - torch.log1p(-logits.softmax(dim=1))
            logits = (logits + self.shifts) / self.temperatures
        distances = torch.linalg.vector_norm((features - self.centre) @ self.whitening, dim=1)
        return logits.sigmoid(), maps, distances


def encode_codes(codes: Tensor) -> Tensor:
    """The input `attributes` of a graph, (batch, 3) float32, as training.network.models.encode_attributes gives it.

    Written so that every number that stands for no value, NaN too, is unknown.
    """
    years = codes[:, :1]
    known = years >= 0
    columns = [torch.where(known, (years - AGE_CENTRE_YEARS) / AGE_SCALE_YEARS, 0.0), (~known).float()]
    for column, words in ((1, SEXES), (2, VIEWS)):
        places = torch.arange(len(words), dtype=codes.dtype, device=codes.device)
        is_word = (codes[:, column : column + 1] == places).float()
        columns += [is_word, 1 - is_word.sum(dim=1, keepdim=True)]
    return torch.cat(columns, dim=1)


@dataclass(frozen=True)
class FittedModel:
    """A network that is ready for export, with the properties that its graphs will carry."""

    checkpoint: Checkpoint
    network: ServedNetwork
    """in evaluation mode, on the CPU"""
    properties: Properties

    def rescaled(self, properties: Properties) -> "FittedModel":
        """The same network with the shifts and temperatures of other properties."""
        parts = {name: getattr(self.network, name).numpy() for name in FITTED[2:]}
        calibration = {name: np.array(getattr(properties, name)) for name in ("shifts", "temperatures")}
        network = ServedNetwork(self.checkpoint.build(), **calibration, **parts).eval()
        return FittedModel(self.checkpoint, network, properties)

    def save(self, folder: Path) -> None:
        """Writes the torch network to network.pt in `folder`, which is created if missing; load_served reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        buffers = {name: getattr(self.network, name) for name in FITTED}
        content = {"checkpoint": vars(self.checkpoint), "properties": self.properties.to_json(), "buffers": buffers}
        torch.save(content, folder / FILE)


def load_served(folder: Path) -> FittedModel:
    """Reads what FittedModel.save wrote, without running code from it; raises InputError if it is absent or damaged."""
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
    return FittedModel(checkpoint, network, Properties.parse(content["properties"], str(folder / FILE)))


def torch_predict(network: ServedNetwork, device: torch.device = CPU) -> Predict:
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
