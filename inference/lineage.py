"""Where a registered version came from: Delta version, run, commit, and every image it was trained on.

    python inference/lineage.py                                                      the challenger, the newest version
    python inference/lineage.py --inference.version 3 > lineage.json

Prints JSON: the images of the training split, and of the validation split, which chose the epoch, the thresholds and
the calibration. They are read from the version of the Delta table, which jobs/maintain.py keeps for as long as the
registered version exists.
"""

import json
from dataclasses import asdict

import pandas as pd

from conf.errors import InputError, run_command
from conf.settings import load_settings
from conf.workspace import Workspace
from etl.schema import Card
from etl.table import read_card, read_labels, snapshot_files
from inference.graphs import open_graph, properties_of
from inference.registry import CHALLENGER, fetch_model, version_of


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
    images = {
        split: pd.concat(map(read_labels, snapshot_files(shards, properties.delta_version, split)))["image_id"].tolist()
        for split in ("train", "val")
    }
    lineage = {"model": name, "version": number} | asdict(properties) | {"table": shards, "source": card.source}
    print(json.dumps(lineage | {"source_sha256": card.source_sha256, "images": images}, indent=2))


if __name__ == "__main__":
    run_command(main)
