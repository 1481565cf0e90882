"""Prints where a registered version came from: Delta version, run, commit, and every image it was trained on.

    python inference/lineage.py                        the challenger, which is the newest version
    python inference/lineage.py 3 > lineage.json       version 3
    python inference/lineage.py --model FILE           a package; its images only if this workspace has its table

The JSON lists the images of the training split, and those of the validation split, which chose the epoch, the
thresholds and the calibration. They are read from the version of the Delta table, which jobs/maintain.py keeps as long
as the registered version exists. If the training started from other models' weights, `ancestors` has the same for each
of those models; their `images` are null if they were trained on another table: run this command in their workspace.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from conf.arguments import ArgumentParser, add_model, load_arguments
from conf.errors import InputError, run_command
from conf.progress import say
from conf.startup import quick_imports
from conf.workspace import Workspace

if TYPE_CHECKING:
    from etl.contract.version import TableVersion

READS = ("inference.registered_model",)


def main() -> None:
    settings, options = load_arguments(
        "Prints where a registered version came from.", "[VERSION]", add_own, reads=READS
    )
    workspace = Workspace.of(settings)
    with quick_imports():
        from etl.contract.version import TableVersion
        from inference.model.graphs import open_graph, properties_of
        from inference.model.model_files import CHALLENGER, CHAMPION, find_model
    wanted = str(options.version) if options.version else CHAMPION if options.model else CHALLENGER
    found = find_model(workspace, settings.inference.registered_model, wanted, options.model)
    properties = properties_of(open_graph(found.variant("int8")))
    lineage = {"model": found.name, "version": found.version} | asdict(properties)
    if found.package:
        lineage |= {"package": found.package}
    try:
        newest = TableVersion.of(workspace)
        table = newest.trained_on(properties.delta_table_id, properties.delta_version, found.title)
    except InputError as error:
        # A package comes without its table.
        if not found.package:
            raise
        say(f"the images are left out: {error}")
        print(json.dumps(lineage | {"images": None}, indent=2))
        return
    ancestors = [ancestor | {"images": images_of_ancestor(newest, ancestor)} for ancestor in properties.ancestors]
    lineage |= {"table": table.shards, "source": table.card.source}
    lineage |= {"source_sha256": table.card.source_sha256, "ancestors": ancestors}
    print(json.dumps(lineage | {"images": images_of(table)}, indent=2))


def add_own(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "version", nargs="?", type=int, default=0, help="number of the registered version; if omitted, the challenger"
    )


def images_of(table: "TableVersion") -> dict[str, list[str]]:
    """Images of the training and the validation split, as image_ids."""
    return {split: table.rows(split)["image_id"].tolist() for split in ("train", "val")}


def images_of_ancestor(newest: "TableVersion", ancestor: dict) -> dict[str, list[str]] | None:
    """The same for an ancestor; None if it was trained on another table, on a version that is gone, or elsewhere."""
    if ancestor.get("delta_version") is None:
        return None
    try:
        table = newest.trained_on(ancestor["delta_table_id"], ancestor["delta_version"], "the ancestor")
    except InputError:
        return None
    return images_of(table)


if __name__ == "__main__":
    run_command(main)
