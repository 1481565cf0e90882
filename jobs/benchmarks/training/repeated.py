"""A table of any number of rows from one that is there, and its images as PNG files: for the training's benchmarks."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import pyarrow.parquet as pq

from etl.contract.schema import Card, table_schema
from etl.contract.table import commit, snapshot_files
from training.reading.plan import Split
from training.reading.readers import read_batches


def repeat_table(shards: str, card: Card, num_rows: int, folder: str) -> tuple[str, Card]:
    """A table in `folder` whose training split has the files of this one, again and again, and no other split.

    At least num_rows rows, to the end of a file; the files are links. Returns its address and card. Raises InputError
    where there is no table.
    """
    files = snapshot_files(shards, card.delta_version, "train")
    added, rows = [], 0
    os.makedirs(f"{folder}/split=train")
    while rows < num_rows:
        file, path = files[len(added) % len(files)], f"split=train/{len(added):06}.parquet"
        os.symlink(os.path.abspath(file), f"{folder}/{path}")
        added.append((path, os.path.getsize(file), pq.read_metadata(file).num_rows))
        rows += added[-1][2]
    repeated = replace(card, table="", delta_version=0, images={**card.images, "train": rows})
    commit(folder, repeated, table_schema(card.sizes_px), added, None)
    return folder, repeated


def write_pngs(split: Split, folder: Path) -> None:
    """The split's images in the table's order, as 00000000.png and so on."""
    folder.mkdir(parents=True)
    index = 0
    for batch in read_batches(split, batch_size=64):
        for pixels in batch.pixels.numpy():
            cv2.imwrite(str(folder / f"{index:08}.png"), pixels)
            index += 1
