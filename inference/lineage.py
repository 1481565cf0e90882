"""Where a registered version came from: Delta version, run, commit, and every image it was trained on.

    python inference/lineage.py                                                      the challenger, the newest version
    python inference/lineage.py --inference.version 3 > lineage.json

Prints JSON: the images of the training split, and of the validation split, which chose the epoch, the thresholds and
the calibration. They are read from the version of the Delta table, which jobs/maintain.py keeps for as long as the
registered version exists. Of a model that began with the weights of others, `ancestors` has the same of each; their
`images` are null where they were trained on another table: ask in their workspace.
"""

import json
from dataclasses import asdict

import pandas as pd

from conf.errors import InputError, run_command
from conf.settings import load_settings
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.table import read_card, read_labels, snapshot_files
from inference.model.graphs import open_graph, properties_of
from inference.model.registry import CHALLENGER, fetch_model, version_of


def main() -> None:
    settings = load_settings("Prints where a registered version came from.")
    workspace = Workspace.at(settings.workspace, settings.tracking_server)
    name, wanted = settings.inference.registered_model, settings.inference.version
    number = version_of(workspace, name, str(wanted) if wanted else CHALLENGER)
    if number is None:
        raise InputError(
            f"no version {wanted or CHALLENGER} of {name}: look at its versions in MLflow's pages (`make ui`)"
        )
    properties = properties_of(open_graph(fetch_model(workspace, name, number) / "int8"))
    shards, _ = workspace.tables(Card.read(workspace.card).table)
    card = read_card(shards, properties.delta_version)
    if card is None or card.delta_table_id != properties.delta_table_id:
        raise InputError(
            f"{name} version {number} was trained on table {properties.delta_table_id}, which is not at {shards}: give "
            "the workspace, or etl.table, that has it"
        )
    ancestors = [ancestor | {"images": images_of_ancestor(shards, ancestor)} for ancestor in properties.ancestors]
    lineage = {"model": name, "version": number} | asdict(properties) | {"table": shards, "source": card.source}
    lineage |= {"source_sha256": card.source_sha256, "ancestors": ancestors}
    print(json.dumps(lineage | {"images": images_of(shards, properties.delta_version)}, indent=2))


def images_of(shards: str, version: int) -> dict[str, list[str]]:
    """Images of the training and the validation split in a version of the table."""
    return {
        split: pd.concat(map(read_labels, snapshot_files(shards, version, split)))["image_id"].tolist()
        for split in ("train", "val")
    }


def images_of_ancestor(shards: str, ancestor: dict) -> dict[str, list[str]] | None:
    """The same; None where it was trained on another table, on a version that is gone, or is not of our training."""
    version = ancestor.get("delta_version")
    try:
        card = None if version is None else read_card(shards, version)
    except InputError:
        return None
    return images_of(shards, version) if card and card.delta_table_id == ancestor["delta_table_id"] else None


if __name__ == "__main__":
    run_command(main)
