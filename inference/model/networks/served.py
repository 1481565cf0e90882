"""One network as it is served: the trained classifier, its calibration and its familiarity as one torch module."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from conf.words import SEXES, VIEWS
from training.network.attributes import AGE_CENTRE_YEARS, AGE_SCALE_YEARS
from training.network.models import XrayClassifier, pool

FITTED = ("shifts", "temperatures", "centre", "whitening")
"""what was fitted to the trained classifier, of the arguments of ServedNetwork"""


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
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))
        # (findings,). Calibrated maps are flatter by the temperature, and their pooling makes up for it.
        sharpness = torch.full((len(self.shifts),), float(classifier.sharpness))
        # Folded into the last layer: a separate operation would be quantised, and the logits with it.
        last, scale = self.classifier.classifier, self.temperatures
        last.weight.data /= scale[:, None]
        last.bias.data = (last.bias.data + self.shifts) / scale
        self.register_buffer("sharpness", sharpness * scale)

    def forward(self, pixels: Tensor, attributes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        logits, maps, distances = self.evidence(pixels, attributes)
        return probabilities_of(logits, self.classifier.exclusive), maps, distances

    def evidence(self, pixels: Tensor, attributes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Calibrated logits (of classes, those of a softmax), maps and distances, as forward.

        pixels, attributes: see inputs.Inputs.
        """
        encoded = None if attributes is None else encode_codes(attributes)
        features, maps = self.classifier.features_and_maps(pixels, encoded)
        logits = pool(maps, self.sharpness if self.classifier.sharpness else 0.0)
        distances = torch.linalg.vector_norm((features - self.centre) @ self.whitening, dim=1)
        return logits, maps, distances

    def fitted(self) -> dict[str, Tensor]:
        """What was fitted to the trained classifier."""
        return {name: getattr(self, name) for name in FITTED}


def probabilities_of(logits: Tensor, exclusive: bool) -> Tensor:
    """The probabilities of calibrated logits, both (batch, findings). exclusive: those of classes, which sum to 1."""
    return logits.softmax(dim=1) if exclusive else logits.sigmoid()


def encode_codes(codes: Tensor) -> Tensor:
    """The input `attributes` of a graph, (batch, 3) float32, as training.network.attributes.encode_attributes gives it.

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
