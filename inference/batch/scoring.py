"""The work of a Spark worker: reads its share of the images, asks the model, describes the answers.

Imports neither pyspark nor deltalake nor mlflow, so that a worker starts quickly.
"""

import math
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby, islice, repeat, tee
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from conf.errors import InputError
from etl.contract.ahead import call_ahead, fetch_ahead
from etl.contract.row_groups import GROUPS_AHEAD, read_row_groups
from etl.contract.schema import image_column
from etl.contract.storage import reaching
from inference.film.answers import answer_films, call_findings
from inference.film.films import MAX_FILE_BYTES, OUT_OF_REACH, NoFilm, read_film
from inference.film.stated import Stated, doubts_of
from inference.model.graphs import Predict
from inference.model.inputs import Attributes, Inputs, inputs_of
from inference.model.properties import ATTRIBUTES, Properties
from inference.model.reference import difference_here
from inference.model.variants import open_variant
from training.measures.conformal import NO_ANSWER, PRESENT, UNSURE

# Rows per batch that goes back to Spark: enough to spread the batch's cost, few enough for memory.
ROWS_PER_BATCH = 128
LATER = (("age_years", pa.float32()), ("sex", pa.string()), ("view", pa.string()), ("doubts", pa.string()))
"""columns that scores of older releases lack"""
ANSWERED = (("present", pa.list_(pa.string())), ("unsure", pa.list_(pa.string())), ("error_rate", pa.float64()))
"""columns of a model that answers unsure; scores of other models lack them"""
COPIED = ("image_id", "image_version", "fault", "unreadable")


@dataclass(frozen=True)
class WorkerModel:
    """The variant that a worker opens, in a folder that it can read."""

    mode: str
    folder: Path
    batch_size: int
    """images per request"""


class Image(NamedTuple):
    """An image that was read, or the reason why not."""

    image_id: str
    image_version: str
    pixels: np.ndarray | None
    """as in Inputs; None if it could not be read"""
    stated: Stated | None = None
    """age, sex and view, of the table or of the file's tags; None if the model takes pixels alone"""
    fault: str | None = None
    """why the ETL would have put it into quarantine; None for a table's image, which the ETL has checked"""
    unreadable: str | None = None
    """why it could not be read"""
    doubts: tuple[str, ...] = ()
    """what speaks against the pixels, see Film.doubts; of a table's image, its column crop says it"""


def answer_schema(findings: list[str], unsure: bool = False) -> pa.Schema:
    """Columns of what score_images gives: one row per image, a column per finding. unsure: with ANSWERED too."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("called", pa.list_(pa.string())),
            *((probability_column(finding), pa.float32()) for finding in findings),
            ("familiar", pa.bool_()),
            ("distance", pa.float32()),
            ("fault", pa.string()),
            ("unreadable", pa.string()),
            ("image_version", pa.string()),
            *LATER,
            *(ANSWERED if unsure else ()),
        ]
    )


def probability_column(finding: str) -> str:
    """Name of the column with the finding's probabilities."""
    return f"probability_{finding}"


def score_images(batches: Iterator[pa.RecordBatch], num_threads: int, model: WorkerModel) -> Iterator[pa.RecordBatch]:
    """Batches of IMAGES (listing.py) to batches of answer_schema, in the same order. Holds the row group in use and,
    of a table in a store, those that are fetched ahead.

    An image that cannot be read gets a row with the reason: none is lost, none ends the run. Raises InputError if a
    store fails, because each further image would wait for it in vain.
    """
    predict, properties = _open(model.mode, model.folder, num_threads)
    images = read_images((row for batch in batches for row in batch.to_pylist()), properties)
    while part := list(islice(images, ROWS_PER_BATCH)):
        yield answer(part, predict, properties, model.batch_size)


@lru_cache(maxsize=1)
def _open(mode: str, folder: Path, num_threads: int) -> tuple[Predict, Properties]:
    """Compiled once per process: Spark gives a worker one task after the other.

    Raises InputError if the model answers otherwise on the worker's machine than where it was measured: nobody would
    look at each score's worker later.
    """
    predict, properties = open_variant(mode, folder, num_threads)
    if differs := difference_here(folder.parent, mode, predict, properties.findings, "--scoring.mode"):
        raise InputError(f"{socket.gethostname()}: {differs}")
    return predict, properties


def read_images(rows: Iterable[dict], properties: Properties) -> Iterator[Image]:
    """Each row's image, as the model takes it. A row group is read once for consecutive rows of it."""
    for is_file, part in groupby(rows, lambda row: row["row_group"] is None):
        if is_file:
            files, again = tee(part)
            contents = fetch_ahead((row["file"] for row in again), MAX_FILE_BYTES + 1)
            yield from map(read_file, files, contents, repeat(properties))
        else:
            yield from read_table(part, properties)


def read_table(rows: Iterable[dict], properties: Properties) -> Iterator[Image]:
    """Images of a table's rows. Of a table in a store, GROUPS_AHEAD row groups are fetched ahead."""
    parts = groupby(rows, lambda row: (row["file"], row["row_group"]))
    places, again = tee((place, list(part)) for place, part in parts)
    column = [image_column(properties.size_px)]
    calls = ((file, partial(read_row_groups, file, column, [group])) for (file, group), _ in again)
    for (place, part), read in zip(places, call_ahead(calls, GROUPS_AHEAD), strict=True):
        yield from read_row_group(place[0], read, part, properties)


def read_file(row: dict, content: Callable[[], bytes], properties: Properties) -> Image:
    """The image of a file, whose first MAX_FILE_BYTES + 1 bytes `content` returns."""

    film = read_film(lambda limit: content()[:limit], properties)
    names = row["image_id"], row["image_version"]
    if isinstance(film, NoFilm):
        return Image(*names, None, unreadable=film.reason)
    return Image(*names, film.pixels, film.stated, film.fault, doubts=film.doubts)


def read_row_group(
    file: str, read: Callable[[], pa.Table], rows: list[dict], properties: Properties
) -> Iterator[Image]:
    """Images of one row group of a file, which `read` returns."""
    try:
        with reaching(file):
            table = read()
    except (OSError, pa.ArrowInvalid) as error:
        reason = f"{OUT_OF_REACH}: {error}"
        yield from (Image(row["image_id"], row["image_version"], None, unreadable=reason) for row in rows)
        return
    cells = table.column(0).combine_chunks()
    # Offsets at which each cell begins and the last one ends in the column's buffer; a null takes no bytes.
    bounds = np.frombuffer(cells.buffers()[1], np.int32)[cells.offset :]
    pixels, expected = np.frombuffer(cells.buffers()[2] or b"", np.uint8), math.prod(properties.image_shape)
    for row in rows:
        start, end = bounds[row["row"] : row["row"] + 2]
        if end - start == expected:
            square = pixels[start:end].reshape(properties.image_shape)
            stated = Stated(Attributes(*(row[name] for name in ATTRIBUTES))) if properties.attributes else None
            yield Image(row["image_id"], row["image_version"], square, stated)
        else:
            reason = f"damaged row: {end - start} bytes, expected {expected}"
            yield Image(row["image_id"], row["image_version"], None, unreadable=reason)


def answer(images: list[Image], predict: Predict, properties: Properties, batch_size: int) -> pa.RecordBatch:
    """One row of answer_schema per image; the model gets the readable ones in requests of batch_size."""
    readable = np.array([image.pixels is not None for image in images])
    shown = [image for image in images if image.pixels is not None]
    parts = [shown[start : start + batch_size] for start in range(0, len(shown), batch_size)]
    requests = [_inputs_of(part, properties) for part in parts]
    probabilities = np.zeros((len(images), len(properties.findings)), np.float32)
    distances = np.full(len(images), np.nan, np.float32)
    if requests:
        given = [predict(*request) for request in requests]
        probabilities[readable] = np.concatenate([one.probabilities for one in given])
        distances[readable] = np.concatenate([one.distances for one in given])
    familiar, present = call_findings(properties, probabilities, distances)
    names = np.array(properties.findings)
    called = [list(names[row]) if known else None for row, known in zip(present, familiar, strict=True)]
    columns = {
        **{name: [getattr(image, name) for image in images] for name in COPIED},
        **{
            probability_column(finding): pa.array(probabilities[:, index], mask=~familiar)
            for index, finding in enumerate(properties.findings)
        },
        "called": called,
        "familiar": pa.array(familiar, mask=~readable),
        "distance": pa.array(distances, mask=~readable),
        **_stated_columns(images, properties),
        **_answer_columns(probabilities, distances, properties),
    }
    return pa.RecordBatch.from_pydict(columns, answer_schema(properties.findings, bool(properties.unsure)))


def _inputs_of(images: list[Image], properties: Properties) -> Inputs:
    values = [image.stated.values for image in images if image.stated]
    return inputs_of(properties, np.stack([image.pixels for image in images]), values)


def _answer_columns(probabilities: np.ndarray, distances: np.ndarray, properties: Properties) -> dict[str, list]:
    """The columns ANSWERED, null like `called`; none for a model that does not answer unsure."""
    if not properties.unsure:
        return {}
    names, answers = np.array(properties.findings), answer_films(properties, probabilities, distances)
    columns = {
        word: [None if (row == NO_ANSWER).all() else list(names[row == word]) for row in answers]
        for word in (PRESENT, UNSURE)
    }
    return columns | {"error_rate": [properties.unsure["error_rate"]] * len(answers)}


def _stated_columns(images: list[Image], properties: Properties) -> dict[str, list]:
    """The columns LATER."""
    columns = {
        name: [getattr(image.stated.values, name) if image.stated else None for image in images] for name in ATTRIBUTES
    }
    stated = [doubts_of(image.stated, properties) if image.stated else () for image in images]
    doubts = ["; ".join((*image.doubts, *said)) for image, said in zip(images, stated, strict=True)]
    return columns | {"doubts": [said or None for said in doubts]}
