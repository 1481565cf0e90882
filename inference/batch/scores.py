"""The Delta table of scores: what is in it, and one commit per run. The one owner of deltalake in this package.

A row is one image as one version of a model saw it; rows are added and never changed:

    image_id         of the table, or the path below the folder
    called           the findings whose probability reaches the threshold (Youden's, of the validation split); null
                     where the image is unlike the training data or could not be read
    probability_F    calibrated, 0..1, a column for each finding F; null as `called`, and where the model knows no F
    familiar, distance   whether the image is like the training data, and how far it is from it (familiarity.py)
    fault            why the ETL would have put the image into quarantine; it is scored all the same
    unreadable       why it could not be scored
    image_version    of a table its pixel_hash, of a folder size and time (or ETag) of the file
    model, model_version, mode       what has scored it
    model_sha256     of its graph: every registry has a version 1
    source, table_version            delta_table_id and version, or the folder, and null
    scored_at        when the run began, UTC
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from conf.errors import InputError
from etl.contract.storage import is_local, locate, unreachable
from etl.contract.table import store_options
from inference.batch.scoring import OUT_OF_REACH, answer_schema

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
# Rows that agree in these and in the image are not scored again.
SAME_RUN = ("model", "model_version", "mode", "model_sha256", "source")
IMAGE = ("image_id", "image_version", "unreadable")
Known = set[tuple[str, str, str | None]]


@dataclass(frozen=True)
class Run:
    """What the rows of a run have in common, see RUN."""

    model: str
    model_version: int
    mode: str
    model_sha256: str
    source: str
    table_version: int | None
    scored_at: datetime


def known_images(output: str, run: Run) -> Known:
    """IMAGE of each row that runs of this kind have left. Raises InputError where `output` is something else."""
    return _known_images(_open(output), run)


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
    """Whether each image, by image_id and image_version, is still to be scored; so is one that was out of reach."""
    done = {(name, version) for name, version, why in known if not (why or "").startswith(OUT_OF_REACH)}
    keys = zip(images["image_id"].to_pylist(), images["image_version"].to_pylist(), strict=True)
    return [key not in done for key in keys]


def append_scores(output: str, answers: pa.Table, run: Run) -> tuple[pa.Table, int | None]:
    """Adds what is not in the table yet, in one commit; returns these rows and the new version, None where none is new.

    answers: of answer_schema; columns that the table lacks, such as those of another vocabulary, are added to it.
    Raises InputError where another run has added to the table at the same moment.
    """
    # One look for what is known and for the version to add to: a commit between two would not be noticed.
    table = _open(output)
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
            write_deltalake(output, rows, mode="error", storage_options=store_options(output))
        else:
            # Without retries: another run may have added the same images meanwhile.
            once = CommitProperties(max_commit_retries=0)
            write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=once)
        return rows, DeltaTable(output, storage_options=store_options(output)).version()
    except DeltaError as error:
        raise InputError(f"{output} took no new version ({error}): run it again") from error
    except OSError as error:
        raise InputError(unreachable(output, error)) from error


def _open(output: str) -> DeltaTable | None:
    """The table; None where there is none yet. Raises InputError where there is something else."""
    place = locate(output)
    if is_local(place) and place.exists() and not (place / "_delta_log").is_dir():
        # A run that was killed before its first commit leaves Parquet files.
        if place.is_dir() and all(file.suffix == ".parquet" for file in place.iterdir()):
            return None
        raise InputError(f"scoring.output {output} is no Delta table of scores: choose another folder")
    try:
        table = DeltaTable(output, storage_options=store_options(output))
    except TableNotFoundError:
        return None
    except OSError as error:
        raise InputError(unreachable(output, error)) from error
    types = {field.name: field.type for field in table.schema().fields}
    expected = Schema.from_arrow(pa.schema([*answer_schema([]), *RUN])).fields
    if any(types.get(field.name) != field.type for field in expected):
        raise InputError(f"the Delta table at {output} holds something else than scores: choose another scoring.output")
    return table
