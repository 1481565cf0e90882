"""The manifest of the SIIM-ACR Pneumothorax Segmentation challenge 2019, as its table of masks is published.

train-rle.csv            ImageId, EncodedPixels: a row per mask, or one with -1 without a pneumothorax; or
stage_2_train.csv        the same of the second stage
.../ImageId.dcm          1024x1024 pixels; ImageId is the SOP Instance UID

A mask is a run-length code: pairs of the pixels to skip and those to mark, down the columns from the left. Each mask
becomes the box around it. The films are some of ChestX-ray14's.
"""

import numpy as np
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.cluster.workers import SparkWorkers
from etl.sources.manifest import Manifest
from etl.sources.published.challenge import FRAME_PX, Box, assemble_challenge
from etl.sources.published.tables import find_table, find_tables
from etl.sources.tables.file import read_table

TABLES = ("*train-rle.csv", "stage_2_train.csv")
FINDING = "Pneumothorax"
NO_MASK = "-1"


def read_siim(source: UPath, settings: Etl, workers: SparkWorkers) -> Manifest:
    """Reads the table, and the tags of the films that are DICOM files. The finding is `Pneumothorax`.

    Raises InputError for a missing or damaged table, a mask that does not fit a film of 1024x1024 pixels, a film with
    a mask and with -1, or no film at all.
    """
    pattern = next((pattern for pattern in TABLES if find_tables(source, pattern)), TABLES[0])
    path = find_table(source, pattern, "SIIM's masks")
    table = read_table(path, ["ImageId", "EncodedPixels"]).drop_duplicates()
    boxes: dict[str, list[Box]] = {}
    for line, image, mask in table[["ImageId", "EncodedPixels"]].itertuples(name=None):
        if mask != NO_MASK:
            boxes.setdefault(image, []).append((0, _box_of(mask, path, line), line))
    both = table[table["ImageId"].isin(boxes.keys()) & (table["EncodedPixels"] == NO_MASK)]
    if len(both):
        raise InputError(
            f"{path} line {both.index[0] + 2}: {both['ImageId'].iloc[0]} has no mask (-1), and one in another row: fix "
            "one of them"
        )
    first = table.drop_duplicates("ImageId")["ImageId"]
    labels = [np.array([image in boxes], np.float32) for image in first]
    return assemble_challenge(source, settings, workers, [path], first, labels, boxes, [FINDING])


def _box_of(mask: str, path: UPath, line: int) -> list[float]:
    """Left, top, right and bottom of the marked pixels."""
    numbers = mask.split()
    fine = numbers and len(numbers) % 2 == 0 and all(number.isdigit() and len(number) < 8 for number in numbers)
    codes = np.array(numbers if fine else [0, 0], np.int64).reshape(-1, 2)
    ends = np.cumsum(codes.sum(axis=1))
    starts = ends - codes[:, 1]
    if not fine or (codes[:, 1] < 1).any() or ends[-1] > FRAME_PX**2:
        raise InputError(
            f"{path} line {line + 2}: EncodedPixels is {mask[:60]!r}, expected -1, or pairs of pixels to skip and to "
            f"mark in a film of {FRAME_PX}x{FRAME_PX} pixels: get a fresh copy of the table"
        )
    columns = [starts // FRAME_PX, (ends - 1) // FRAME_PX]
    # A run that goes on in the next column reaches the bottom and the top.
    whole = columns[0] != columns[1]
    top = 0 if whole.any() else (starts % FRAME_PX).min()
    bottom = FRAME_PX if whole.any() else ((ends - 1) % FRAME_PX).max() + 1
    return [float(columns[0].min()), float(top), float(columns[1].max() + 1), float(bottom)]
