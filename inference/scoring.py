"""What a worker does with its share of the images: reads them, asks the model, describes the answers.

Imports neither pyspark nor deltalake nor mlflow: a worker starts with as little as it needs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etl.images import MAX_SIDE_PX, BadImage
from etl.schema import image_column
from etl.storage import is_of_a_store, locate, read_bytes
from inference.answers import describe_findings
from inference.films import load_film
from inference.graphs import Predict
from inference.properties import Properties
from inference.variants import open_variant

# In colour, of 16 bits, uncompressed, with the longest sides that are read; and a header.
MAX_FILE_BYTES = 6 * MAX_SIDE_PX**2 + 1_000_000
OUT_OF_REACH = "cannot be read"
"""how the reason begins where nobody has seen the image: a later run tries it again"""


@dataclass(frozen=True)
class Model:
    """Which variant a worker opens, in a folder that it can read."""

    mode: str
    folder: Path
    batch_size: int
    """images per request"""


@dataclass(frozen=True)
class Image:
    """An image as it was read."""

    image_id: str
    image_version: str
    pixels: np.ndarray | None
    """(S, S) uint8; None where it could not be read"""
    fault: str | None = None
    """why the ETL would have put it into quarantine; None for a table's, which the ETL has looked at"""
    unreadable: str | None = None
    """why it could not be read"""


def answer_schema(findings: list[str]) -> pa.Schema:
    """Columns of what score_images gives: one row per image, a column per finding."""
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
        ]
    )


def probability_column(finding: str) -> str:
    """Name of the column with the finding's probabilities."""
    return f"probability_{finding}"


def score_images(batches: Iterator[pa.RecordBatch], num_threads: int, model: Model) -> Iterator[pa.RecordBatch]:
    """Batches of IMAGES (listing.py) to batches of answer_schema, in the same order; holds one row group.

    An image that cannot be read gets a row with the reason: none is lost, none ends the run.
    """
    predict, properties = _open(model.mode, model.folder, num_threads)
    schema = answer_schema(properties.findings)
    images = read_images((row for batch in batches for row in batch.to_pylist()), properties)
    while request := list(islice(images, model.batch_size)):
        yield pa.RecordBatch.from_pylist(list(answer(request, predict, properties)), schema)


@lru_cache(maxsize=1)
def _open(mode: str, folder: Path, num_threads: int) -> tuple[Predict, Properties]:
    """Compiled once per process: Spark gives a worker one task after the other."""
    return open_variant(mode, folder, num_threads)


def read_images(rows: Iterable[dict], properties: Properties) -> Iterator[Image]:
    """Each row's image, as the model takes it. A row group is read once for the rows that follow each other in it."""
    for (file, group), part in groupby(rows, lambda row: (row["file"], row["row_group"])):
        if group is None:
            yield from (read_file(row, properties) for row in part)
        else:
            yield from read_row_group(file, group, part, properties.size_px)


def read_file(row: dict, properties: Properties) -> Image:
    """The image of a file."""
    names = row["image_id"], row["image_version"]
    try:
        content = read_bytes(row["file"], MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise BadImage(f"too large: over {MAX_FILE_BYTES // 10**6} MB")
        film = load_film(content, properties)
    except BadImage as reason:
        return Image(*names, None, unreadable=str(reason))
    except MemoryError:
        return Image(*names, None, unreadable=f"{OUT_OF_REACH}: not enough memory to decode it")
    except Exception as error:
        if not isinstance(error, OSError) and not is_of_a_store(error):
            raise
        return Image(*names, None, unreadable=f"{OUT_OF_REACH}: {getattr(error, 'strerror', None) or error}")
    return Image(*names, film.pixels, film.fault)


def read_row_group(file: str, group: int, rows: Iterable[dict], size_px: int) -> Iterator[Image]:
    """Images of one row group of a table."""
    try:
        with locate(file).open("rb") as source:
            parquet, column = pq.ParquetFile(source), image_column(size_px)
            # Without Arrow's threads, which would be one per core in each of the workers.
            cells = parquet.read_row_group(group, [column], use_threads=False).column(0)
    except Exception as error:
        if not isinstance(error, OSError | pa.ArrowInvalid) and not is_of_a_store(error):
            raise
        for row in rows:
            yield Image(row["image_id"], row["image_version"], None, unreadable=f"{OUT_OF_REACH}: {error}")
        return
    for row in rows:
        names, pixels = (row["image_id"], row["image_version"]), cells[row["row"]].as_buffer()
        if pixels is None or pixels.size != size_px**2:
            size = 0 if pixels is None else pixels.size
            yield Image(*names, None, unreadable=f"damaged row: {size} bytes, expected {size_px**2}")
        else:
            yield Image(*names, np.frombuffer(pixels, np.uint8).reshape(size_px, size_px))


def answer(images: list[Image], predict: Predict, properties: Properties) -> Iterator[dict]:
    """One row of answer_schema per image; all that could be read are one request."""
    readable = [image.pixels for image in images if image.pixels is not None]
    given = predict(np.stack(readable)) if readable else None
    answers = zip(given.probabilities, given.distances, strict=True) if given else iter(())
    for image in images:
        row = {name: getattr(image, name) for name in ("image_id", "image_version", "fault", "unreadable")}
        if image.pixels is None:
            yield row
            continue
        said = describe_findings(properties, *next(answers), image.fault)
        yield {
            **row,
            "familiar": said.familiar,
            "distance": said.distance,
            "called": [finding.name for finding in said.findings if finding.present] if said.familiar else None,
            **{probability_column(finding.name): finding.probability for finding in said.findings},
        }
