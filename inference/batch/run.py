"""A run of the batch: the images that are new, scored on the workers, added to the scores in one commit."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa

from inference.batch.listing import Listing
from inference.batch.scores import Run, append_scores, choose_new, known_images
from inference.batch.scoring import Model, answer_schema, score_images
from inference.served_model import ServedModel

# Of a table some row groups; of files less, as decoding takes longer.
ROWS_PER_TASK, FILES_PER_TASK = 1024, 64


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    rows: pa.Table
    """that it has added, see scores.py"""
    known: int
    """images of the source that had scores already"""
    version: int | None
    """of the scores; None: nothing was new"""


def score_new(
    model: ServedModel, listing: Listing, output: str, batch_size: int, map_in_arrow: Callable[..., pa.Table]
) -> Outcome:
    """Scores what this version of the model has not scored yet. A run that is killed leaves the old version.

    map_in_arrow: of etl.shards.SparkWorkers. Raises InputError where `output` is no table of scores.
    """
    run = Run(model.name, model.version, model.mode, listing.source, listing.table_version, datetime.now(UTC))
    new = listing.only(choose_new(listing.images, known_images(output, run)))
    known = len(listing.images) - len(new.images)
    schema = answer_schema(model.properties.findings)
    if not len(new.images):
        return Outcome(schema.empty_table(), known, None)
    answers = map_in_arrow(
        partial(score_images, model=Model(model.mode, model.folder / model.mode, batch_size)),
        new.images,
        schema,
        FILES_PER_TASK if listing.table_version is None else ROWS_PER_TASK,
        "images to scores",
    )
    assert len(answers) == len(new.images), f"{len(new.images)} images gave {len(answers)} rows"
    rows, version = append_scores(output, answers, run)
    return Outcome(rows, known, version)
