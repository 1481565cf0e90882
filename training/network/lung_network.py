"""A small network that finds the lungs: a pyramid of features (Lin et al., "Feature pyramid networks", CVPR 2017).

85 million multiplications for a film of 128 pixels, so that looking for lungs costs less than decoding the film.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from conf.errors import InputError

WIDTHS = (16, 32, 64, 128)
"""channels at each level, each of which has half the side of the one before; the first has half the film's"""
PYRAMID = 32
"""channels of the pyramid"""
FORMAT = 1


class LungNetwork(nn.Module):
    """Turns films into logits of lung, one for each pixel."""

    def __init__(self, pixel_mean: float, pixel_std: float):
        """pixel_mean, pixel_std: 0..255, those of the training split."""
        super().__init__()
        inputs = (1, *WIDTHS[:-1])
        self.levels = nn.ModuleList(
            nn.Sequential(*_block(before, width, stride=2), *(_block(width, width) if before > 1 else ()))
            for before, width in zip(inputs, WIDTHS, strict=True)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in WIDTHS)
        self.last = nn.Sequential(*_block(PYRAMID, PYRAMID), nn.Conv2d(PYRAMID, 1, 1))
        self.register_buffer("pixel_mean", torch.tensor(float(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(float(pixel_std)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of lung, (batch, S, S) float32. pixels: (batch, S, S), 0..255, S a multiple of 16."""
        features = ((pixels.float() - self.pixel_mean) / self.pixel_std)[:, None]
        found = [features := level(features) for level in self.levels]
        merged = self.laterals[-1](found[-1])
        for lateral, level in zip(reversed(self.laterals[:-1]), reversed(found[:-1]), strict=True):
            merged = lateral(level) + nn.functional.interpolate(merged, scale_factor=2, mode="bilinear")
        return nn.functional.interpolate(self.last(merged), scale_factor=2, mode="bilinear")[:, 0]


def save_network(network: LungNetwork, path: Path, about: dict) -> None:
    """Writes the weights and what is known about them. about: plain values, see segmentation/run.py."""
    torch.save({"format": FORMAT, "weights": network.state_dict(), "about": about}, path)


def load_network(path: Path) -> tuple[LungNetwork, dict]:
    """The network in evaluation mode, and what is known about it. Raises InputError if the file is none of these."""
    if not path.exists():
        raise InputError(f"no lung network at {path}: run `python training/lungs.py` with this workspace first")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']}, expected {FORMAT}")
        network = LungNetwork(0.0, 1.0)
        network.load_state_dict(saved["weights"])
        return network.eval(), saved["about"]
    except Exception as error:
        # torch raises many kinds of errors for damaged files.
        raise InputError(f"{path} is no lung network ({error!s:.200}): run `python training/lungs.py` again") from error


def _block(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
