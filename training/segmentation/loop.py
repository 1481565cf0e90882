"""Trains the lung network, and measures how its field overlaps with the masks."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from training.loop.seeds import GREYS, random_state
from training.network.lung_network import LungNetwork
from training.reading.augment import augment, draw_changes, origins
from training.segmentation.reading import Films

WEIGHT_DECAY = 1e-4
# How much the greys of films from other machines may differ, after Isensee et al., "nnU-Net" (Nature Methods 2021), but
# with more gamma and noise: hard films, and those of old detectors, are common.
GAMMA = 2.0
CONTRAST = (0.65, 1.5)
BRIGHTNESS = 40.0
"""largest change of all greys, of 255"""
NOISE = 15.0
"""largest standard deviation of the noise, of 255"""


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy per pixel plus 1 - Dice per film (Milletari et al., "V-Net", 3DV 2016), a scalar.

    logits: (batch, S, S). masks: (batch, S, S), the share of each pixel that is lung, 0..1.
    """
    probabilities = logits.sigmoid()
    common, sums = (probabilities * masks).sum(dim=(1, 2)), (probabilities + masks).sum(dim=(1, 2))
    # The 1 pixel keeps a mask that the augmentation has moved out of sight from dividing by zero.
    dice = (2 * common + 1) / (sums + 1)
    return nn.functional.binary_cross_entropy_with_logits(logits, masks) + (1 - dice).mean()


def moved(masks: Tensor, draws: Tensor) -> Tensor:
    """The masks as `augment` moves the films. draws: from draw_changes; beyond the film there is no lung."""
    grid = nn.functional.affine_grid(origins(draws), [len(masks), 1, *masks.shape[1:]], align_corners=False)
    return nn.functional.grid_sample(masks[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0]


def vary_greys(pixels: Tensor, seed: int) -> Tensor:
    """Changes gamma, contrast and brightness of each film by amounts of its own, and adds noise.

    pixels: (batch, S, S) float32, 0..255, and so is what it returns. A network that learns where the lungs are on films
    of one machine must find them on those of another.
    """
    random = torch.Generator().manual_seed(seed)
    gamma, contrast, brightness, noise = torch.rand(4, len(pixels), 1, 1, generator=random)
    changed = 255 * (pixels / 255) ** (GAMMA ** (2 * gamma - 1))
    mean = changed.mean(dim=(1, 2), keepdim=True)
    changed = (changed - mean) * (CONTRAST[0] + contrast * (CONTRAST[1] - CONTRAST[0])) + mean
    changed = changed + (2 * brightness - 1) * BRIGHTNESS
    return (changed + torch.randn(pixels.shape, generator=random) * noise * NOISE).clamp(0, 255)


def train(
    network: LungNetwork,
    read: Callable[[int], Iterable[Films]],
    steps_per_epoch: int,
    epochs: int,
    learning_rate: float,
    seed: int,
    after_epoch: Callable[[int, float], None],
) -> None:
    """Trains the network. read: gives the batches of an epoch. after_epoch: gets each epoch's number and mean loss."""
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=WEIGHT_DECAY)
    total = epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=total)
    step = 0
    for epoch in range(epochs):
        network.train()
        losses = []
        for films in read(epoch):
            draws = draw_changes(len(films.pixels), seed + step)
            pixels = vary_greys(augment(torch.from_numpy(films.pixels), draws), random_state(GREYS, seed, step))
            loss = segmentation_loss(network(pixels), moved(torch.from_numpy(films.masks), draws))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if (step := step + 1) < total:
                schedule.step()
            losses.append(loss.item())
        network.eval()
        after_epoch(epoch, float(np.mean(losses)))


def measure(predict: Callable[[np.ndarray], np.ndarray], batches: Iterable[Films]) -> tuple[np.ndarray, list[str]]:
    """Intersection over union of field and mask of each film, (films,) float64, and the films' patients.

    predict: (batch, S, S) uint8 to logits of the same shape; from 0 on is lung.
    """
    overlaps, patients = [], []
    for films in batches:
        found, lung = predict(films.pixels) >= 0, films.masks >= 0.5
        common, either = (found & lung).sum(axis=(1, 2)), (found | lung).sum(axis=(1, 2))
        overlaps.append(common / np.maximum(either, 1))
        patients += films.patients
    return np.concatenate(overlaps), patients


def torch_predict(network: LungNetwork) -> Callable[[np.ndarray], np.ndarray]:
    """What `measure` asks, of a network in evaluation mode."""

    def predict(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(pixels)).numpy()

    return predict
