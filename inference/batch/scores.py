"""The Delta table of scores: its columns, and one commit per run. The only file of inference/ that imports deltalake.

A row is the answer of one version of a model for one image. Rows are added and never changed:

    image_id         the table's image_id, or the path below the folder
    called           the findings whose probability reaches the threshold (Youden's, of the validation split); null
                     if the image is unlike the training data or could not be read
    probability_F    calibrated, 0..1, one column per finding F; null like `called`, and if the model does not know F
    familiar, distance   whether the image is like the training data, and how far it is from it (familiarity.py)
    fault            why the ETL would have put the image into quarantine; it is scored anyway
    unreadable       why it could not be scored
    image_version    the table's pixel_hash, or size and time (or ETag) of the file; with the table's age, sex and view
                     if the model takes them
    age_years, sex, view, doubts     what the model got besides the pixels, null for unknown; and what speaks against
                     it, such as an age that its training did not have. All null if it takes pixels alone
    present, unsure  the findings with this answer, null like `called`; a familiar image's other findings are absent
    error_rate       that of these answers. Only a model that answers unsure has values in these three
    model, model_version, mode       the model that scored it
    model_sha256     SHA-256 of its graph, because every registry has a version 1
    source, table_version            delta_table_id and version, or the folder, and null
    scored_at        when the run began, UTC
"""

import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.exceptions import DeltaError

from conf.errors import InputError
from etl.contract.delta import KEEP_HISTORY, open_table, store_options
from etl.contract.storage import is_local, locate, unreachable
from inference.batch.scoring import ANSWERED, LATER, OUT_OF_REACH, answer_schema, probability_column

RUN = pa.schema(
    [
        ("model", pa.string()),
        ("model_version", pa.int64()),
        ("mode", pa.string()),
        ("model_sha256", pa.string()),
        ("source", pa.string()),
        ("table_version", pa.int64()),
        ("scored_at", pa.timestamp("us", tz="UTC")),
    ]
)
# An image is not scored again if a row agrees in these columns and in the image.
SAME_RUN = ("model", "model_version", "mode", "model_sha256", "source")
IMAGE = ("image_id", "image_version", "unreadable")
Known = set[tuple[str, str, str | None]]


@dataclass(frozen=True)
class Run:
    """The values that all rows of a run share, see RUN."""

    model: str
    model_version: int
    mode: str
    model_sha256: str
    source: str
    table_version: int | None
    scored_at: datetime


def known_images(output: str, run: Run, findings: list[str]) -> Known:
    """The columns IMAGE of all rows that runs of this kind left.

    findings: the model's, each of which needs a column. Raises InputError if `output` is something else than scores, or
    if a column differs by case alone from one that is needed, which Delta does not allow.
    """
    table = _open(output)
    there = {field.name.lower(): field.name for field in table.schema().fields} if table else {}
    for column in map(probability_column, findings):
        other = there.get(column.lower(), column)
        if other != column:
            raise InputError(
                f"{output} has the column {other!r}, and the model needs {column!r}, which Delta takes for the same: "
                "choose another folder with --scoring.output"
            )
    return _known_images(table, run)


def check_writable(output: str) -> None:
    """Raises InputError if `output` is a local folder that cannot be written, such as on a read-only mount."""
    place = locate(output)
    if not is_local(place):
        return
    above = next(folder for folder in (Path(place.path), *Path(place.path).parents) if folder.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"scores cannot be written to {output}: {above} is read-only or belongs to somebody else; choose another "
            "folder with --scoring.output"
        )


def _known_images(table: DeltaTable | None, run: Run) -> Known:
    if table is None:
        return set()
    known: Known = set()
    for file in map(unquote, table.file_uris()):
        try:
            with locate(file).open("rb") as source:
                rows = pq.ParquetFile(source).read([*IMAGE, *SAME_RUN], use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"{file} of the scores cannot be read ({error}): choose another folder with --scoring.output"
            ) from error
        for name in SAME_RUN:
            rows = rows.filter(pc.equal(rows[name], getattr(run, name)))
        known.update(zip(*(rows[name].to_pylist() for name in IMAGE), strict=True))
    return known


def choose_new(images: pa.Table, known: Known) -> list[bool]:
    """Whether each image, by image_id and image_version, must still be scored, such as one that was out of reach."""
    done = {(name, version) for name, version, why in known if not (why or "").startswith(OUT_OF_REACH)}
    keys = zip(images["image_id"].to_pylist(), images["image_version"].to_pylist(), strict=True)
    return [key not in done for key in keys]


def append_scores(output: str, answers: pa.Table, run: Run) -> tuple[pa.Table, int | None]:
    """Adds rows that the table lacks, in one commit; returns them and the new version, which is None if there are none.

    answers: rows of answer_schema; columns that the table lacks, as after a change of the vocabulary, are added.
    Raises InputError where another run has added to the table at the same moment.
    """
    # One read for the known images and the version to add to: a commit between two reads would go unnoticed.
    table = _open(output, to_write=True)
    known = _known_images(table, run)
    triples = zip(*(answers[name].to_pylist() for name in IMAGE), strict=True)
    new = [is_new and triple not in known for is_new, triple in zip(choose_new(answers, known), triples, strict=True)]
    rows = answers.filter(pa.array(new, pa.bool_()))
    if not len(rows):
        return rows, None
    for field in RUN:
        rows = rows.append_column(field, pa.array([asdict(run)[field.name]] * len(rows), field.type))
    try:
        if table is None:
            options = store_options(output, to_write=True)
            write_deltalake(output, rows, mode="error", configuration=KEEP_HISTORY, storage_options=options)
        else:
            # Without retries, because another run may have added the same images meanwhile.
            once = CommitProperties(max_commit_retries=0)
            write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=once)
        return rows, DeltaTable(output, storage_options=store_options(output)).version()
    except DeltaError as error:
        raise InputError(f"{output} took no new version ({error}): run it again") from error
    except OSError as error:
        raise InputError(unreachable(output, error)) from error


def _open(output: str, to_write: bool = False) -> DeltaTable | None:
    """The table; None if there is none yet. Raises InputError if there is something else. to_write: see open_table."""
    place = locate(output)
    if is_local(place) and place.exists() and not (place / "_delta_log").is_dir():
        # A run that was killed before its first commit leaves Parquet files.
        if place.is_dir() and all(file.suffix == ".parquet" for file in place.iterdir()):
            return None
        raise InputError(f"scoring.output {output} is no Delta table of scores: choose another folder")
    table = open_table(output, to_write)
    if table is None:
        return None
    types = {field.name: field.type for field in table.schema().fields}
    expected = Schema.from_arrow(pa.schema([*answer_schema([], unsure=True), *RUN])).fields
    later = dict(LATER + ANSWERED)
    if any(types.get(one.name, one.type if one.name in later else None) != one.type for one in expected):
        raise InputError(f"the Delta table at {output} holds something else than scores: choose another scoring.output")
    return table
