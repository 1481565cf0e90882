"""Small tables for the tests of the ETL: films, an NIH folder that grows, a run of the ETL without Spark."""

import numpy as np
import pandas as pd
import pyarrow.dataset as ds

from conf.settings import Etl, Quality
from conf.workspace import Workspace
from etl.contract.schema import SPLITS, Card
from etl.contract.table import snapshot_files
from etl.sources.read import read_manifest
from etl.writing.publish import Published, publish
from tests.conftest import InlineWorkers, NihFolder, png

# The folder's images are noise of 64x64 pixels.
ANY = Quality(min_side_px=0, constant=False, clipped=False, inverted=False)
SMALL = {"sizes_px": [32, 64], "val_fraction": 0.3, "rows_per_row_group": 5, "rows_per_file": 11, "quality": ANY}


def run(folder, workspace: Workspace, workers=None, rebuild=False, **etl) -> Published:
    settings = Etl(**{**SMALL, **etl})
    manifest = read_manifest(folder.root, settings)
    return publish(workspace.tables(""), settings, str(folder.root), manifest, workers or InlineWorkers(), rebuild)


def rows_of(workspace: Workspace, card: Card) -> pd.DataFrame:
    """All rows with all columns of the card's version, by image."""
    parts = []
    for split in SPLITS:
        files = snapshot_files(workspace.shards, card.delta_version, split)
        parts.append(ds.dataset(files).to_table().to_pandas().assign(split=split))
    return pd.concat(parts).set_index("image_id").sort_index()


def film(value: int, size_px: int = 64) -> bytes:
    return png(np.random.default_rng(value).integers(0, 256, (size_px, size_px), dtype=np.uint8))


def add(folder: NihFolder, patient: int, follow_up: int, content: bytes, finding: str = "Hernia") -> str:
    name = f"{patient:08d}_{follow_up:03d}.png"
    folder.rows.append([name, finding, str(follow_up), str(patient), "58", "F", "PA", "64", "64", "1", "1"])
    folder.put(name, content)
    (folder.train_val if patient % 4 else folder.test).append(name)
    folder.write_lists()
    return name
