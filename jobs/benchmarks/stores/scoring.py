"""Scores a folder and a table of a store as inference/predict.py does, beside the same on a local disk."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from operator import truediv
from pathlib import Path

from conf.workspace import Workspace
from etl.cluster.workers import SparkWorkers
from etl.contract.storage import locate
from etl.contract.version import TableVersion
from inference.batch.listing import Listing, list_folder, list_table
from inference.batch.run import score_new
from inference.model.model_files import ModelFiles
from inference.model.served_model import ServedModel
from inference.model.variants import open_variant
from jobs.benchmarks.inference.fresh import export_fresh

NETWORK, MODE, BATCH_SIZE = "simple_cnn", "int8", 16
"""the smallest network, so that reading is most of the work"""
TURNS = 5


def measure_scoring(
    folders: dict[str, str], tables: dict[str, TableVersion], size_px: int, workers: SparkWorkers, root: Path
) -> dict[str, float]:
    """Images/s of listing and scoring, seconds of listing, ratios of the store to the disk; medians of turns.

    folders, tables: `local` and `store` -> the same images there. The scores go to the disk below `root`.
    """
    export_fresh(NETWORK, size_px, root / "model")
    predict, properties = open_variant(MODE, root / "model" / MODE, num_threads=1)
    model = ServedModel(ModelFiles("benchmark", 1, root / "model"), MODE, properties, predict)
    listings: dict[tuple[str, str], Callable[[], Listing]] = {}
    for name, folder in folders.items():
        listings["files", name] = partial(list_folder, locate(folder))
    for name, table in tables.items():
        workspace = Workspace.at(str(root / f"scored-{name}"))
        workspace.root.mkdir()
        table.name_in(workspace)
        listings["rows", name] = partial(list_table, workspace, properties)
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in listings}
    listing_s: dict[tuple[str, str], list[float]] = {key: [] for key in listings}
    for turn in range(TURNS + 1):
        for (kind, name), list_images in listings.items():
            started = time.perf_counter()
            listing = list_images()
            listed = time.perf_counter()
            output = str(root / "scores" / f"{kind}-{name}-{turn}")
            rows = score_new(model, listing, output, BATCH_SIZE, workers.map_in_arrow).rows
            # In the first turn, workers start and open the model.
            if turn:
                speeds[kind, name].append(len(rows) / (time.perf_counter() - started))
                listing_s[kind, name].append(listed - started)
            assert rows["unreadable"].null_count == len(listing.images), f"not every image in {kind} of {name} was read"
    measured = {f"scoring_{kind}_{name}_per_s": values for (kind, name), values in speeds.items()}
    measured |= {f"scoring_{kind}_{name}_listing_s": values for (kind, name), values in listing_s.items()}
    for kind in ("files", "rows"):
        measured[f"scoring_{kind}_store_to_local"] = list(map(truediv, speeds[kind, "store"], speeds[kind, "local"]))
    return {name: statistics.median(values) for name, values in measured.items()}
