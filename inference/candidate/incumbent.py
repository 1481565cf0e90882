"""The present champion, against which a candidate is measured on the same images."""

from dataclasses import dataclass

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.schema import Card
from inference.model.graphs import Predict, compile_graph, open_graph, properties_of
from inference.model.properties import PREPARATION, Properties
from inference.model.registry import champion_version, fetch_model
from training.reading.leaks import seen_in_test
from training.reading.plan import Split
from training.reading.readers import open_split


@dataclass(frozen=True)
class Champion:
    """A version of the registry."""

    version: int
    why_not: str
    """why it cannot be compared; empty where it can"""
    predict: Predict | None = None
    """its INT8 graph"""
    properties: Properties | None = None
    test: Split | None = None
    """the same images at its size"""


def present_champion(workspace: Workspace, name: str, card: Card) -> Champion | None:
    """The champion, to be measured on the card's test split at its own size; None where there is no champion yet."""
    version = champion_version(workspace, name)
    if version is None:
        return None
    try:
        graph = open_graph(fetch_model(workspace, name, version) / "int8")
        properties = properties_of(graph)
    except InputError as error:
        # Of an older format, or damaged: that must not keep a new one out of the registry.
        return Champion(version, str(error))
    for what in ("findings", "delta_table_id"):
        before, now = getattr(properties, what), getattr(card, what)
        if before != now:
            return Champion(version, f"its {what} is {before}, this model's {now}")
    for what in PREPARATION:
        before, now = getattr(properties, what), card.settings[what]
        if before != now:
            return Champion(version, f"its images were made with etl.{what} {before}, the table's are with {now}")
    if properties.size_px not in card.sizes_px:
        return Champion(version, f"it takes {properties.size_px} pixels, the table has {card.sizes_px}")
    shards = workspace.tables(card.table)[0]
    try:
        seen = seen_in_test(shards, card, [vars(properties), *properties.ancestors])
    except InputError as error:
        return Champion(version, f"what it was trained on is gone ({error})")
    if seen:
        return Champion(version, f"it was trained on {len(seen)} of the test split's patients, who were in others then")
    test = open_split(shards, card, "test", properties.size_px)
    return Champion(version, "", compile_graph(graph), properties, test)
