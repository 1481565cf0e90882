"""Films with their masks, from the table's row groups to batches. One process, one row group in memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa

from conf.errors import InputError
from etl.contract.row_groups import footer_of, read_row_groups
from etl.contract.schema import Card, image_column, mask_column
from etl.contract.version import TableVersion

MIN_FILMS = 2
"""films with masks that each split needs; BatchNorm needs two in a step"""


@dataclass(frozen=True)
class Films:
    """Some films of a split, in a batch or alone."""

    pixels: np.ndarray
    """(films, S, S) uint8 grey"""
    masks: np.ndarray
    """(films, S, S) float32: the share of each pixel that is lung, 0..1"""
    patients: list[str]


def check_masks(card: Card) -> None:
    """Raises InputError if a network cannot be trained on the table: colour, or a split without masks."""
    has = card.masks.get("images", {})
    lacking = [split for split in card.images if has.get(split, 0) < MIN_FILMS]
    if lacking:
        raise InputError(
            f"the {lacking[0]} split of {card.title} has {has.get(lacking[0], 0)} masks, and the network needs "
            f"{MIN_FILMS} in each: name a folder of masks by --etl.masks (phantoms have them with --phantoms.masks "
            "true) and run the ETL again"
        )
    if card.settings.get("intensity", "none") != "none":
        raise InputError(
            f"the greys of {card.title} were adjusted, and lungs are found before that: make a table without "
            "etl.intensity"
        )
    if card.settings.get("crop", "none") != "none":
        raise InputError(
            f"the films of {card.title} are cropped, and lungs are found on whole ones: make a table without etl.crop"
        )
    if card.channels != 1:
        raise InputError(f"the films of {card.title} are in colour, expected grey ones: use another --etl.format")


def stored_size(card: Card, size_px: int) -> int:
    """The smallest stored size that is not below size_px, else the largest."""
    return min((size for size in card.sizes_px if size >= size_px), default=max(card.sizes_px))


def read_films(
    table: TableVersion, split: str, size_px: int, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[Films]:
    """The films of a split that have a mask, each once, in batches. rng: shuffles row groups, and films inside them.

    The last batch may be smaller; one of a single film joins the batch before it, because BatchNorm needs two.
    """
    stored = stored_size(table.card, size_px)
    files = table.files(split)
    groups = [(file, group) for file in files for group in range(footer_of(file).metadata.num_row_groups)]
    columns = ["patient_id", image_column(stored), mask_column(stored)]
    waiting: list[tuple[np.ndarray, np.ndarray, str]] = []
    for place in range(len(groups)) if rng is None else rng.permutation(len(groups)):
        file, group = groups[place]
        rows = list(_rows(read_row_groups(file, columns, [group]).select(columns), size_px))
        waiting += rows if rng is None else [rows[row] for row in rng.permutation(len(rows))]
        while len(waiting) > batch_size + 1:
            yield _joined(waiting[:batch_size])
            del waiting[:batch_size]
    if waiting:
        yield _joined(waiting)


def _rows(table: pa.Table, size_px: int) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Film, mask and patient of each row that has a mask. table: patient_id, film and mask."""
    for patient, *squares in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if squares[1] is not None:
            side = math.isqrt(len(squares[1]))
            film, mask = (_resized(np.frombuffer(cell, np.uint8).reshape(side, side), size_px) for cell in squares)
            yield film, mask.astype(np.float32) / 255, patient


def _resized(square: np.ndarray, size_px: int) -> np.ndarray:
    if len(square) == size_px:
        return square
    interpolation = cv2.INTER_AREA if len(square) > size_px else cv2.INTER_LINEAR
    return cv2.resize(square, (size_px, size_px), interpolation=interpolation)


def _joined(rows: list[tuple[np.ndarray, np.ndarray, str]]) -> Films:
    films, masks, patients = zip(*rows, strict=True)
    return Films(np.stack(films), np.stack(masks), list(patients))
