"""The incumbent: the champion of the moment, against which a candidate is measured on the same images."""

from dataclasses import dataclass

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from inference.model.graphs import Predict, compile_graph, open_graph, properties_of
from inference.model.properties import Properties, preparation_of
from inference.model.registry import champion_version, fetch_model
from training.reading.leaks import seen_in_test
from training.reading.plan import Split
from training.reading.readers import open_split


@dataclass(frozen=True)
class Incumbent:
    """The registered version that is the champion now."""

    version: int
    why_not: str
    """why the candidate cannot be compared with it; empty if it can"""
    predict: Predict | None = None
    """its INT8 graph"""
    properties: Properties | None = None
    test: Split | None = None
    """the same images at its input size"""


def open_incumbent(workspace: Workspace, name: str, table: TableVersion) -> Incumbent | None:
    """The champion, to be measured on the table's test split at its own input size; None if there is none yet."""
    card = table.card
    version = champion_version(workspace, name)
    if version is None:
        return None
    try:
        graph = open_graph(fetch_model(workspace, name, version) / "int8")
        properties = properties_of(graph)
    except InputError as error:
        # A champion of an older format, or a damaged one, must not keep a new model out of the registry.
        return Incumbent(version, str(error))
    for what in ("findings", "delta_table_id"):
        before, now = getattr(properties, what), getattr(card, what)
        if before != now:
            return Incumbent(version, f"its {what} is {before}, this model's {now}")
    for what, now in preparation_of(card.settings, card.lungs).items():
        before = getattr(properties, what)
        if before != now:
            return Incumbent(version, f"its images were made with etl.{what} {before}, the table's are with {now}")
    if properties.channels != card.channels:
        return Incumbent(version, f"it takes images of {properties.channels} channels, the table has {card.channels}")
    if properties.size_px not in card.sizes_px:
        return Incumbent(version, f"it takes {properties.size_px} pixels, the table has {card.sizes_px}")
    try:
        seen = seen_in_test(table, [vars(properties), *properties.ancestors])
    except InputError as error:
        return Incumbent(version, f"what it was trained on is gone ({error})")
    if seen:
        return Incumbent(
            version, f"it was trained on {len(seen)} of the test split's patients, who were in others then"
        )
    test = open_split(table, "test", properties.size_px)
    return Incumbent(version, "", compile_graph(graph), properties, test)
