"""The losses that training minimises: binary cross-entropy over the known labels, or cross-entropy over classes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from conf.errors import InputError
from conf.settings import Training
from etl.contract.schema import Card


def masked_bce(logits: Tensor, labels: Tensor, pos_weight: Tensor, count: float | None = None) -> Tensor:
    """Binary cross-entropy over the known labels: the sum divided by `count`, or without it the mean.

    logits, labels: (batch, findings) float32; a NaN label is unknown and adds no loss.
    pos_weight: (findings,) weight of a positive label.
    count: the labels of the whole step, known or not, divided by the ranks, whose gradients are averaged, so that each
    known label weighs the same in every step and on every rank. A batch with no known label gives 0, so that every rank
    still joins the gradient average.
    """
    known = ~labels.isnan()
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), pos_weight=pos_weight, reduction="none"
    )
    return (losses * known).sum() / (count or known.sum().clamp(min=1))


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0, count: float | None = None) -> Tensor:
    """Cross-entropy of images of exactly one class each: the sum divided by `count`, or without it the mean.

    logits, labels: (batch, classes) float32; a row of labels has one 1, all else 0. smoothing: share of the target that
    is spread over all classes, 0..1 (Szegedy et al., "Rethinking the Inception architecture", 2016). count: number of
    images.
    """
    losses = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return losses.sum() / (count or len(labels))


def check_classes(labels: Tensor, image_ids: Sequence[str]) -> None:
    """Raises InputError unless each image has exactly one class. labels: (batch, classes) float32."""
    strange = ((labels == 1).sum(dim=1) != 1) | ((labels != 0).sum(dim=1) != 1)
    if strange.any():
        names = [str(name) for name, is_strange in zip(image_ids, strange, strict=True) if is_strange]
        raise InputError(
            f"training.loss is cross_entropy but {len(names)} of {len(strange)} images, such as {names[0]}, have no "
            "class, several classes or an unknown label: leave training.loss out, or label each image with one class"
        )


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds whose sigmoid is the softmax of the logits: log(p / (1 - p)) of each class, (batch, classes) float32.

    With log-odds each class can be measured like a finding.
    """
    top = logits.argmax(dim=1, keepdim=True)
    others_of_top = logits.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    # Below the top a probability is at most one half, so 1 - p loses no precision.
    odds = logits.log_softmax(dim=1) - torch.log1p(-logits.softmax(dim=1))
    return odds.scatter(1, top, logits.gather(1, top) - others_of_top)


def positive_weights(card: Card, ceiling: float) -> Tensor:
    """Negatives per positive in the training split (Rajpurkar et al., "CheXNet", 2017), (findings,) float32.

    ceiling: largest weight. A finding without positives or without negatives in the training split gets 1: it can teach
    nothing, and a weight of 0 has no logarithm, by which the calibration shifts its logits.
    """
    known, positives = card.known["train"], card.positives["train"]
    ratios = [(known[f] - positives[f]) / positives[f] if 0 < positives[f] < known[f] else 1.0 for f in card.findings]
    return torch.tensor(ratios, dtype=torch.float32).clamp(max=ceiling)


def loss_weights(card: Card, settings: Training) -> Tensor:
    """Weight of a positive label in the training's loss, (findings,) float32; 1 for cross-entropy, which has none."""
    if settings.exclusive:
        return torch.ones(len(card.findings))
    return positive_weights(card, settings.pos_weight_max)
