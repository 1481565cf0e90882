"""Makes a table of any number of rows by repeating another, and PNG files of its images, for the benchmarks."""

import os
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import pyarrow.parquet as pq

from conf.settings import Etl
from etl.contract.schema import table_schema
from etl.contract.table import commit
from etl.contract.version import TableVersion
from training.reading.batches import read_batches
from training.reading.plan import Split


def repeat_table(table: TableVersion, num_rows: int, folder: str) -> TableVersion:
    """Makes a table in `folder` whose only split, training, repeats the files of this table's training split.

    It has at least num_rows rows, always in whole files, which are links.
    """
    card, files = table.card, table.files("train")
    added, rows = [], 0
    os.makedirs(f"{folder}/split=train")
    while rows < num_rows:
        file, path = files[len(added) % len(files)], f"split=train/{len(added):06}.parquet"
        os.symlink(os.path.abspath(file), f"{folder}/{path}")
        added.append((path, os.path.getsize(file), pq.read_metadata(file).num_rows))
        rows += added[-1][2]
    repeated = replace(card, table="", delta_version=0, images={**card.images, "train": rows})
    made_with = asdict(Etl()) | card.settings
    schema = table_schema(card.sizes_px, made_with["crop"], made_with["masks"])
    commit(folder, repeated, schema, added, None)
    return TableVersion(folder, repeated)


def write_pngs(split: Split, folder: Path) -> None:
    """Writes the split's images in the table's order, as 00000000.png and so on."""
    folder.mkdir(parents=True)
    index = 0
    for batch in read_batches(split, batch_size=64):
        for pixels in batch.pixels.numpy():
            cv2.imwrite(str(folder / f"{index:08}.png"), pixels)
            index += 1
