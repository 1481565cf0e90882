"""The layers of a network from its input to its head, for learning rates that differ from layer to layer."""

from collections.abc import Iterator

from torch import nn

from conf.errors import InputError
from training.network.models import XrayClassifier

BODY = "body."


def learning_rate_shares(model: XrayClassifier, name: str, decay: float) -> dict[str, float]:
    """Share of the learning rate of each parameter of the model, by its name.

    The head (neck, tabular branch, last linear layer) has the whole rate, and each layer of the body `decay` times the
    rate of what is above it (Clark et al., "ELECTRA", ICLR 2020; Bao et al., "BEiT", ICLR 2022). A layer is a block of
    a transformer, a stage of another network, or what timm takes for one; a normalisation belongs to what is before it.
    name: the network's, for messages. decay: above 0, at most 1. Raises InputError if the body has fewer than two
    layers.
    """
    groups = _groups_of(model.body)
    if len(groups) < 2:
        raise InputError(
            f"training.layer_decay is {decay}, but {name} does not say which layers it has: leave "
            "training.layer_decay out, or choose another model, such as densenet121, vit_b_16 or timm:resnet50"
        )
    shares = {
        f"{BODY}{parameter}": decay ** (len(groups) - layer)
        for layer, names in enumerate(groups)
        for parameter in names
    }
    return {key: shares.get(key, 1.0) for key, _ in model.named_parameters()}


def _groups_of(body: nn.Module) -> list[list[str]]:
    """Names of the body's parameters, layer by layer from the input on."""
    if hasattr(body, "layer_groups"):
        return body.layer_groups()
    groups: list[list[str]] = []
    for prefix, part in _stages(body):
        names = [f"{prefix}{name}" for name, _ in part.named_parameters()]
        if groups and _only_normalises(part):
            groups[-1] += names
        else:
            groups.append(names)
    return groups


def _stages(body: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The children with weights, under their names; for a child that holds all of the body (`features`) its own."""
    children = [(f"{prefix}{name}.", child) for name, child in body.named_children() if list(child.parameters())]
    working = [child for _, child in children if not _only_normalises(child)]
    for name, child in children:
        if working == [child] and list(child.children()):
            yield from _stages(child, name)
        else:
            yield name, child


def _only_normalises(part: nn.Module) -> bool:
    return all(parameter.ndim == 1 for parameter in part.parameters())
