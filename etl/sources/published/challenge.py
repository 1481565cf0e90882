"""The manifest of a challenge whose table names DICOM films by their names, and nothing names patients."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from upath import UPath

from conf.settings import Etl
from etl.cluster.workers import SparkWorkers
from etl.contract.images.orientation import UPRIGHT
from etl.contract.listing import list_files
from etl.contract.words import says_nothing
from etl.sources.files import match_files
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.published.boxes import place_box
from etl.sources.published.film_tags import read_film_tags
from etl.sources.published.tables import no_split
from etl.sources.split import NO_PATIENTS, assign_split

FRAME_PX = 1024
"""side of the films of both challenges, whose pixels the boxes refer to even if the films at hand are smaller copies"""
Box = tuple[int, list[float], int]
"""index of the finding, box as from read_box, line of the table from 0 below its header"""


def assemble_challenge(
    source: UPath,
    settings: Etl,
    workers: SparkWorkers,
    tables: list[UPath],
    images: pd.Series,
    labels: list[np.ndarray],
    boxes: dict[str, list[Box]],
    findings: list[str],
    notes: Iterable[str] = (),
) -> Manifest:
    """The manifest; age, sex, view and patient come from the films that are DICOM files.

    tables: of labels, the first one has the boxes. images: one row per image, with the line as index. labels: float32
    arrays in the order of the findings. boxes: of an image. An age without a unit is in years. A patient whose tag is
    empty is the image itself. Raises InputError for a box outside of its film, or no film at all.
    """
    files = list_files(source)
    found = match_files(images, files, tables[0])
    tags, more = read_film_tags(found, files, workers)
    named = ~tags.patient.map(says_nothing).astype(bool)
    rows = build_rows(
        tables[0],
        images=images,
        patients=tags.patient.where(named, images),
        follow_up=pd.Series("", images.index),
        age=tags.age,
        sex=tags.sex,
        view=tags["view"],
        findings=labels,
    )
    strange = (tags.orientation != UPRIGHT) | (tags.width_px != tags.height_px)
    placed, dropped = [], 0
    for image, file, is_strange in zip(images, found, strange, strict=True):
        of_image = boxes.get(image, []) if file else []
        dropped += len(of_image) * is_strange
        placed.append([] if is_strange else _place(tables[0], of_image, settings.square))
    rows["boxes"] = pd.Series(placed, rows.index)
    rows = assign_split(rows, settings, None)
    rows["file"] = found
    notes = [*notes, *more, *no_split(settings)]
    if named.sum() < found.notna().sum() or not (tags.patient[named] != images[named]).any():
        notes.append(NO_PATIENTS)
    if dropped:
        notes.append(f"boxes of films that are shown turned, or are not square, are left out: {dropped:,}")
    searched = f"films of {tables[0].name} is below {source}: check --etl.source and --etl.format"
    why = f"not listed in {tables[0].name}"
    return assemble(rows, files, findings, tables, searched, left_out=why, notes=notes)


def _place(path: UPath, boxes: list[Box], square: str) -> list[float]:
    """The boxes of one image in the contract's format."""
    shares = [(float(finding), *place_box(path, line, box, FRAME_PX, FRAME_PX, square)) for finding, box, line in boxes]
    return [number for box in shares for number in box]
