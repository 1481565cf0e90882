"""Writes one Parquet file of the table where its images are decoded: the code that Spark workers run, without Spark."""

import hashlib
import resource
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from conf.settings import Etl
from etl.contract.ahead import fetch_ahead
from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.lungs.crop import Crop, crop_film, place_boxes
from etl.contract.images.misfits import misfit_of
from etl.contract.images.pixels import BadImage, one_error_for_lack_of_memory, to_square
from etl.contract.images.quality import adjust_intensity, find_fault
from etl.contract.schema import LABELS, image_column, mask_column, table_schema
from etl.contract.storage import is_local, locate, open_new, reaching
from etl.writing.film_mask import load_masks

NO_DICTIONARY = ("findings", "boxes", "crop")
"""columns of lists. Masks have one, beside which they take a hundredth of the pixels"""
UNSENT_BYTES = 64_000_000
"""of a file, after which the worker waits until a store has taken them: a slow link must not fill the memory"""


@dataclass(frozen=True)
class Shard:
    """The planned content of one file."""

    split: str
    index: int
    """position among the files of a run, which gives readers the same order in every run"""
    rows: pd.DataFrame
    """LABELS, path, file_version and kept_in: the Parquet file that already has the pixels; None: decode the image"""


@dataclass(frozen=True)
class ShardFile:
    """A written file; the path is empty if all its images were bad."""

    path: str
    """relative to the table's folder"""
    size_bytes: int
    num_rows: int
    bad: list[tuple[str, str]]
    """image_id and reason of each bad image"""
    peak_mb: float
    """peak resident memory of the writing process so far"""


def write_shard(
    shard: Shard, table: str, attempt: str, settings: Etl, channels: int, sources: dict[str, Etl]
) -> ShardFile:
    """Decodes or copies the pixels of the shard's images and writes them, in its order, in row groups of the set size.

    attempt: prefix of the file's name, which is new each time. A file is not part of the table until it is committed.
    sources: name of each source of images to decode -> how it is read.
    Holds one row group in memory, and UNSENT_BYTES that a store has not taken yet.
    Raises InputError as `reaching` does, OSError if a local file cannot be written.
    """
    folder = locate(table) / f"split={shard.split}"
    if is_local(folder):
        # An object store needs no folders, and its client would create a missing bucket as well.
        folder.mkdir(parents=True, exist_ok=True)
    name = f"split={shard.split}/{attempt}-{shard.index:06}-{uuid.uuid4().hex[:8]}.parquet"
    schema = table_schema(settings.sizes_px, settings.crop, settings.masks)
    schema = schema.remove(schema.get_field_index("split"))
    pixels = {image_column(size) for size in settings.sizes_px}
    small = [column for column in schema.names if column not in pixels]
    bad: list[tuple[str, str]] = []
    num_rows = sent_bytes = 0
    file = locate(table) / name
    with reaching(str(file)), open_new(file) as target:
        # Pixels get no compression and no statistics: noise does not compress, and minima and maxima say nothing.
        with pq.ParquetWriter(
            target,
            schema,
            compression={column: "zstd" if column in small else "none" for column in schema.names},
            use_dictionary=[column for column in small if column not in NO_DICTIONARY],
            write_statistics=["image_id", "patient_id"],
        ) as writer:
            for group in _group(_rows(shard, settings, channels, sources, bad), settings.rows_per_row_group):
                if target.tell() - sent_bytes > UNSENT_BYTES:
                    target.flush()
                    sent_bytes = target.tell()
                writer.write_table(pa.Table.from_pylist(group, schema), row_group_size=len(group))
                num_rows += len(group)
        size_bytes = target.tell()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not num_rows:
        file.unlink()
        name = ""
    return ShardFile(name, size_bytes, num_rows, bad, peak_mb)


class Loaded(NamedTuple):
    """One decoded image."""

    squares: list[np.ndarray]
    """at each of etl.sizes_px, (S, S) uint8 grey or (S, S, 3) RGB"""
    crop: Crop | None
    """None: the film was kept whole"""
    width: int
    """of the film, upright, in pixels"""
    height: int


def load_squares(read: Callable[[], bytes], settings: Etl, channels: int) -> Loaded:
    """Decodes, checks, crops and squares an image. Raises BadImage with the reason.

    read: returns the content of the file.
    """
    try:
        with one_error_for_lack_of_memory():
            content = read()
            # Format dicom has asked the tags before it listed the file.
            misfit = misfit_of(content, settings.dicom) if settings.format != "dicom" else None
            if misfit:
                raise BadImage(misfit)
            image = (decode_grey if channels == 1 else decode_colour)(content, settings.grey_bits)
            fault = find_fault(image, settings.quality) if channels == 1 else None
            if fault:
                raise BadImage(fault)
            height, width = image.shape[:2]
            image, crop = crop_film(image, settings.crop, settings.crop_margin, settings.lungs)
            image = adjust_intensity(image, settings.intensity)
            squares = [to_square(image, size, settings.square, quick=crop is not None) for size in settings.sizes_px]
            return Loaded(squares, crop, width, height)
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        # The next run tries again what cannot be read.
        raise BadImage("cannot be read: not enough memory to decode it") from error


def _rows(
    shard: Shard, settings: Etl, channels: int, sources: dict[str, Etl], bad: list[tuple[str, str]]
) -> Iterator[dict]:
    """Yields the shard's rows with their pixels; bad images are appended to `bad` instead."""
    for kept_in, part in shard.rows.groupby("kept_in", sort=False, dropna=False):
        if isinstance(kept_in, str):
            yield from _copied(part, kept_in, settings)
            continue
        for row, read in zip(part.to_dict("records"), fetch_ahead(part.path), strict=True):
            try:
                loaded = load_squares(read, sources[row["source"]], channels)
            except BadImage as reason:
                bad.append((row["image_id"], str(reason)))
                continue
            labels = {**_labels(row), "crop": loaded.crop and list(loaded.crop)}
            labels["boxes"] = place_boxes(labels["boxes"], loaded.crop, settings.square)
            masks = _masks(row["masks"], loaded, settings) if settings.masks else {}
            yield {**labels, **masks, **_pixels(loaded.squares, settings.sizes_px), "file_version": row["file_version"]}


def _masks(files: list[str] | float, loaded: Loaded, settings: Etl) -> dict:
    """The columns of one row's mask. files: NaN if the row is of a source without masks, beside one that has some."""
    try:
        masks = load_masks(
            fetch_ahead(files if isinstance(files, list) else []), loaded.width, loaded.height, loaded.crop, settings
        )
    except BadImage as reason:
        return {"mask_fault": str(reason)}
    names = map(mask_column, settings.sizes_px)
    return {name: mask.tobytes() for name, mask in zip(names, masks, strict=True)}


def _copied(rows: pd.DataFrame, file: str, settings: Etl) -> Iterator[dict]:
    """Yields these rows with their pixels from `file`, in the file's order."""
    wanted = {row["image_id"]: _labels(row) for row in rows.to_dict("records")}
    with locate(file).open("rb") as source:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=settings.rows_per_row_group):
            for old in batch.to_pylist():
                if old["image_id"] in wanted:
                    yield {**old, **wanted.pop(old["image_id"])}
    assert not wanted, f"{file} lacks {list(wanted)[:3]}"


def _labels(row: dict) -> dict:
    """The labels of a manifest's row in the form that Arrow needs: None if unknown, NaN only inside the lists."""
    values = {name: row[name] for name in LABELS.names if name != "split"}
    return {k: None if np.isscalar(v) and pd.isna(v) else v for k, v in values.items()}


def _pixels(squares: list[np.ndarray], sizes_px: list[int]) -> dict:
    """The pixel columns of one row, from (S, S) or (S, S, 3) uint8 squares."""
    columns = {}
    for size, square in zip(sizes_px, squares, strict=True):
        mean, std = cv2.meanStdDev(square.reshape(-1, 1))
        columns |= {image_column(size): square.tobytes(), f"mean_{size}": mean.item(), f"std_{size}": std.item()}
    longest = squares[int(np.argmax(sizes_px))]
    columns["pixel_hash"] = hashlib.sha256(longest).hexdigest()[:32]
    return columns


def _group(rows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    group = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
