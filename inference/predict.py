"""Scores all images of a table or a folder with the champion, by Spark, with one compiled model per worker process.

    spark-submit inference/predict.py                                      the table of conf/demo.yaml's workspace
    spark-submit inference/predict.py --scoring.source DIR                 the image files below DIR
    spark-submit inference/predict.py --scoring.output DIR                 somewhere else than <workspace>/scores
    spark-submit --conf spark.task.cpus=4 inference/predict.py             a quarter of the tasks, four threads each

It adds one row per image to the Delta table of scores, in one commit; inference/batch/scores.py names the columns. A
second run scores images that are new or have changed. A new champion scores all images again, and the old rows stay.
Research use only, not for clinical use.
"""

import time

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conf.arguments import load_settings
from conf.errors import run_command
from conf.places import SCORES, place_of
from conf.words import counted
from conf.workspace import Workspace
from etl.cluster.workers import SparkWorkers
from etl.contract.storage import located, ready
from inference.batch.listing import list_images
from inference.batch.run import BatchOutcome, score_new
from inference.batch.scoring import probability_column
from inference.film.answers import OPERATING_POINT
from inference.model.served_model import ServedModel, open_served

READS = ("scoring", "inference.registered_model", "inference.batch_size")


def main() -> None:
    settings = load_settings("Scores all images of a table, or of a folder, with the champion.", reads=READS)
    workspace = Workspace.of(settings)
    source, given = settings.scoring.source, settings.scoring.output
    output = place_of("scoring.output", given or str(workspace.scores), SCORES)
    ready("scoring.output", output)
    if source:
        located("scoring.source", source)
    model = open_served(workspace, settings.inference.registered_model, mode=settings.scoring.mode, num_threads=1)
    listing = list_images(source, workspace, model.properties)
    started = time.monotonic()
    with SparkWorkers() as workers:
        outcome = score_new(model, listing, output, settings.inference.batch_size, workers.map_in_arrow)
        seconds = time.monotonic() - started
    if listing.left_out:
        kinds = ", ".join(f"{number:,} ({why})" for why, number in listing.left_out.items())
        print(f"files of {source} that were left out: {kinds}")
    show(outcome, model, seconds)
    print(f"Scores: {output}" + ("" if outcome.version is None else f", Delta version {outcome.version}"))
    print(
        f'Next: deltalake.DeltaTable("{output}").to_pandas(), or spark.read.format("delta").load("{output}"); the same '
        "command again scores what is new"
    )


def show(outcome: BatchOutcome, model: ServedModel, seconds: float) -> None:
    """Prints how many images were scored, and what was found."""
    name, rows = f"{model.name} version {model.version} ({model.mode})", outcome.rows
    if outcome.version is None:
        missing = f"; {outcome.out_of_reach:,} still cannot be read" if outcome.out_of_reach else ""
        print(f"nothing is new: {name} has already scored {counted(outcome.known, 'image')}{missing}")
        return
    familiar = pc.sum(rows["familiar"]).as_py() or 0
    called = pc.value_counts(pc.list_flatten(rows["called"])).to_pylist()
    counts = {count["values"]: count["counts"] for count in called}
    caption = f"{name}, thresholds {OPERATING_POINT}; research use only, not for clinical use"
    table = Table("finding", caption=Text(caption, "table.caption"))
    for column in ("called", "of familiar images", "mean probability"):
        table.add_column(column, justify="right")
    for finding in model.properties.findings if familiar else []:
        count, mean = counts.get(finding, 0), pc.mean(rows[probability_column(finding)]).as_py()
        table.add_row(Text(finding), f"{count:,}", f"{count / familiar:.1%}", f"{mean:.3f}")
    Console(highlight=False).print(table)
    unreadable = rows["unreadable"].drop_null().to_pandas()
    strange = len(rows) - familiar - len(unreadable)
    print(
        f"{counted(len(rows), 'image')} scored in {seconds:.0f} s, Spark's start included: {familiar:,} familiar, "
        f"{strange:,} unlike the training data, {len(unreadable):,} not readable; {outcome.known:,} already had scores"
    )
    for reason, number in unreadable.str.split(":").str[0].value_counts().items():
        print(f"  not readable: {number:,} {reason}")


if __name__ == "__main__":
    run_command(main)
