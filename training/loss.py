"""Binary cross-entropy over the labels that are known."""

import torch
from torch import Tensor, nn

from etl.schema import Card


def masked_bce(logits: Tensor, labels: Tensor, pos_weight: Tensor, count: float | None = None) -> Tensor:
    """Binary cross-entropy over the known labels: their sum over `count`, or their mean.

    logits, labels: (batch, findings) float32; a NaN label is unknown and adds no loss.
    pos_weight: (findings,) weight of a positive label.
    count: labels of the whole step, known or not, so that each known label weighs the same in every step and on every
    rank. A batch with no known label gives 0, so that every rank still joins the gradient average.
    """
    known = ~labels.isnan()
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), pos_weight=pos_weight, reduction="none"
    )
    return (losses * known).sum() / (count or known.sum().clamp(min=1))


def positive_weights(card: Card, ceiling: float) -> Tensor:
    """Negatives per positive in the training split (Rajpurkar et al., "CheXNet", 2017), (findings,) float32.

    ceiling: largest weight; a finding without positives in the training split gets 1, it can teach nothing.
    """
    known, positives = card.known["train"], card.positives["train"]
    ratios = [(known[f] - positives[f]) / positives[f] if positives[f] else 1.0 for f in card.findings]
    return torch.tensor(ratios, dtype=torch.float32).clamp(max=ceiling)
