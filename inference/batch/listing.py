"""Lists the images to score, of a table or a folder: the place and the version of each. Reads no pixels."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
from upath import UPath

from conf.errors import InputError
from conf.words import counted
from conf.workspace import Workspace
from etl.contract.ahead import map_files
from etl.contract.clutter import describe_clutter
from etl.contract.listing import list_files
from etl.contract.row_groups import footer_of, read_row_groups
from etl.contract.schema import LABELS, SPLITS
from etl.contract.storage import is_folder, is_local, located, reaching
from etl.contract.version import TableVersion
from inference.model.properties import ATTRIBUTES, Properties, check_table

ATTRIBUTE_TYPES = {name: LABELS.field(name).type for name in ATTRIBUTES}
IMAGES = pa.schema(
    [
        # A table's own image_id, or a file's path below the folder.
        ("image_id", pa.string()),
        # A table's pixel_hash, with age, sex and view if the model takes them, or a file's size and time (or ETag); if
        # it changes, it is another image.
        ("image_version", pa.string()),
        ("file", pa.string()),
        # The place in a Parquet file; null for an image file.
        ("row_group", pa.int32()),
        ("row", pa.int32()),
        # A table's values, if the model takes them; null if unknown, and for an image file.
        *ATTRIBUTE_TYPES.items(),
    ]
)


@dataclass(frozen=True)
class Listing:
    """Images of one source."""

    source: str
    """the table's delta_table_id, or the folder's absolute path or address"""
    table_version: int | None
    """None for a folder"""
    images: pa.Table
    """columns of IMAGES; the images of a row group follow each other"""
    left_out: dict[str, int] = field(default_factory=dict)
    """why files of a folder are not listed -> how many"""

    def only(self, chosen: list[bool]) -> "Listing":
        """This listing with only the images for which `chosen` is true."""
        return replace(self, images=self.images.filter(pa.array(chosen, pa.bool_())))


def list_images(source: str, workspace: Workspace, properties: Properties) -> Listing:
    """Every image of `source`, which is a folder or address of image files or of a workspace; empty: this workspace.

    Raises InputError if there is nothing to score, or if a table is of another kind than the model was trained on.
    """
    if not source:
        return list_table(workspace, properties)
    folder = located("scoring.source", source)
    if not is_folder(folder):
        what = "is a file" if is_local(folder) and folder.exists() else "does not exist"
        raise InputError(f"scoring.source {source} {what}, expected a folder of images or a workspace with a table")
    if is_local(folder) and (folder / "card.json").is_file():
        return list_table(Workspace.at(source, setting="scoring.source"), properties)
    return list_folder(folder)


def list_table(workspace: Workspace, properties: Properties) -> Listing:
    """All images of the version of the table that card.json names."""
    table = TableVersion.of(workspace)
    card = table.card
    check_table(properties, card, workspace.root)
    files = [file for split in SPLITS for file in table.files(split)]
    rows_of = partial(_rows_of, with_attributes=bool(properties.attributes))
    return Listing(card.delta_table_id, card.delta_version, pa.concat_tables(map_files(rows_of, files)))


def list_folder(folder: UPath) -> Listing:
    """Every file below the folder, whatever its name; a file that is no image gets a row that says so.

    Left out is what find_clutter finds, such as the scores themselves.
    """
    files = list_files(folder)
    left_out = files.clutter.value_counts().to_dict()
    there = f"{counted(len(files), 'file')}{describe_clutter(files.clutter)}"
    files = files[files.clutter.isna()]
    if files.empty:
        raise InputError(
            f"no image files below {folder}, which has {there}: give a folder of images with --scoring.source, or the "
            "workspace of a table"
        )
    nowhere = pa.nulls(len(files), pa.int32())
    columns = [files.index.to_list(), files.file_version.to_list(), files.path.to_list(), nowhere, nowhere]
    columns += [pa.nulls(len(files), kind) for kind in ATTRIBUTE_TYPES.values()]
    return Listing(str(folder), None, pa.table(columns, schema=IMAGES), left_out)


def _rows_of(file: str, with_attributes: bool) -> pa.Table:
    """The images of one Parquet file of the table."""
    names = list(ATTRIBUTES) if with_attributes else []
    try:
        with reaching(file):
            metadata = footer_of(file).metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            rows = read_row_groups(file, ["image_id", "pixel_hash", *names])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{file} of the table cannot be read ({error}): run the ETL again") from error
    versions = rows["pixel_hash"]
    if names:
        cells = zip(*(rows[name].to_pylist() for name in ("pixel_hash", *names)), strict=True)
        versions = pa.array([" ".join("?" if cell is None else str(cell) for cell in row) for row in cells])
    columns = [
        rows["image_id"],
        versions,
        pa.array([file] * len(rows)),
        np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
        *(rows[name] if names else pa.nulls(len(rows), kind) for name, kind in ATTRIBUTE_TYPES.items()),
    ]
    return pa.table(columns, schema=IMAGES)
