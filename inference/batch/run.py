"""Runs a batch: scores the images that are new on the workers, adds them in one commit, and shows what was found."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conf.words import counted
from etl.contract.delta import keep_history
from etl.contract.vocabulary import check_vocabulary
from inference.batch.listing import Listing
from inference.batch.scores import Run, append_scores, check_writable, choose_new, known_images
from inference.batch.scoring import OUT_OF_REACH, WorkerModel, answer_schema, probability_column, score_images
from inference.film.answers import OPERATING_POINT
from inference.film.stated import lines_of
from inference.model.properties import ATTRIBUTES
from inference.model.served_model import ServedModel
from training.measures.conformal import PRESENT, UNSURE

# Images per task: some row groups of a table, but fewer files, because decoding takes longer.
ROWS_PER_TASK, FILES_PER_TASK = 1024, 64


@dataclass(frozen=True)
class BatchOutcome:
    """The result of a run."""

    rows: pa.Table
    """rows that it added, see scores.py"""
    known: int
    """number of images of the source that already had scores"""
    out_of_reach: int
    """number of images that could not be opened, in an earlier run and in this one; they get no new row"""
    version: int | None
    """version of the table of scores; None: nothing was new"""


def score_new(
    model: ServedModel, listing: Listing, output: str, batch_size: int, map_in_arrow: Callable[..., pa.Table]
) -> BatchOutcome:
    """Scores what this version of the model has not scored yet. A run that is killed leaves the old version.

    map_in_arrow: the method of etl.cluster.workers.SparkWorkers. Raises InputError if `output` is no table of scores,
    or if the names of the model's findings do not fit into it.
    """
    findings = model.properties.findings
    # An older release may have registered it.
    check_vocabulary(findings, "run the ETL again, train on its table, and register the model")
    variant = model.files.variant(model.mode)
    run = Run(
        model.name,
        model.version,
        model.mode,
        sha256_of(variant),
        listing.source,
        listing.table_version,
        datetime.now(UTC),
    )
    new = listing.only(choose_new(listing.images, known_images(output, run, findings)))
    # Known to be a table of scores now, or no table.
    keep_history(output)
    known = len(listing.images) - len(new.images)
    schema = answer_schema(findings, bool(model.properties.unsure))
    if not len(new.images):
        return BatchOutcome(schema.empty_table(), known, 0, None)
    # Before hours of work, not at the commit.
    check_writable(output)
    answers = map_in_arrow(
        partial(score_images, model=WorkerModel(model.mode, variant, batch_size)),
        new.images,
        schema,
        FILES_PER_TASK if listing.table_version is None else ROWS_PER_TASK,
        "images to scores",
    )
    assert len(answers) == len(new.images), f"{len(new.images)} images gave {len(answers)} rows"
    rows, version = append_scores(output, answers, run)
    return BatchOutcome(rows, known, count_out_of_reach(answers) - count_out_of_reach(rows), version)


def sha256_of(folder: Path) -> str:
    """SHA-256 of the content of the folder's files, in the order of their names, in hexadecimal."""
    whole = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()


def count_out_of_reach(answers: pa.Table) -> int:
    """Number of rows of answer_schema whose image could not be opened."""
    return pc.sum(pc.starts_with(answers["unreadable"], OUT_OF_REACH)).as_py() or 0


def show(outcome: BatchOutcome, model: ServedModel, seconds: float) -> None:
    """Prints how many images were scored, and what was found."""
    name, rows, unsure = f"{model.files.title} ({model.mode})", outcome.rows, model.properties.unsure
    if outcome.version is None:
        missing = f"; {outcome.out_of_reach:,} still cannot be read" if outcome.out_of_reach else ""
        print(f"nothing is new: {name} has already scored {counted(outcome.known, 'image')}{missing}")
        return
    familiar = pc.sum(rows["familiar"]).as_py() or 0
    words = ("called", *((PRESENT, UNSURE) if unsure else ()))
    counts = {word: Counter(pc.list_flatten(rows[word]).to_pylist()) for word in words}
    rate = f", answers at an error rate of {unsure['error_rate']:g}" if unsure else ""
    caption = f"{name}, thresholds {OPERATING_POINT}{rate}; research use only, not for clinical use"
    table = Table("finding", caption=Text(caption, "table.caption"))
    for column in ("called", "of familiar images", "mean probability", *words[1:]):
        table.add_column(column, justify="right")
    for finding in model.properties.findings if familiar else []:
        count, *answers = (counts[word][finding] for word in words)
        mean = pc.mean(rows[probability_column(finding)]).as_py()
        table.add_row(
            Text(finding), f"{count:,}", f"{count / familiar:.1%}", f"{mean:.3f}", *(f"{one:,}" for one in answers)
        )
    Console(highlight=False).print(table)
    unreadable = rows["unreadable"].drop_null().to_pandas()
    strange = len(rows) - familiar - len(unreadable)
    print(
        f"{counted(len(rows), 'image')} scored in {seconds:.0f} s, Spark's start included: {familiar:,} familiar, "
        f"{strange:,} unlike the training data, {len(unreadable):,} not readable; {outcome.known:,} already had scores"
    )
    if model.properties.attributes:
        read = rows.filter(pc.is_null(rows["unreadable"]))
        doubts = read["doubts"].drop_null().to_pandas().str.split("; ").explode().value_counts().to_dict()
        counts = {"films": len(read), "unknown": {name: read[name].null_count for name in ATTRIBUTES}, "doubts": doubts}
        print("\n".join(lines_of(counts)))
    for reason, number in unreadable.str.split(":").str[0].value_counts().items():
        print(f"  not readable: {number:,} {reason}")
