"""Scores all images of a table or a folder with the champion, by Spark, with one compiled model per worker process.

    spark-submit inference/predict.py                                      the table of conf/demo.yaml's workspace
    spark-submit inference/predict.py --scoring.source DIR                 the image files below DIR
    spark-submit inference/predict.py --scoring.output DIR                 somewhere else than <workspace>/scores
    spark-submit inference/predict.py --model chexscale-3.zip              a package (inference/package.py), no registry
    spark-submit --conf spark.task.cpus=4 inference/predict.py             a quarter of the tasks, four threads each

It adds one row per image to the Delta table of scores, in one commit; inference/batch/scores.py names the columns. A
second run scores images that are new or have changed. A new champion scores all images again, and the old rows stay.
Research use only, not for clinical use.
"""

import time

from conf.arguments import add_model, load_arguments
from conf.errors import run_command
from conf.places import SCORES, place_of
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("scoring", "inference.registered_model", "inference.batch_size")


def main() -> None:
    settings, options = load_arguments(
        "Scores all images of a table, or of a folder, with the champion.", "", add_model, reads=READS
    )
    workspace = Workspace.of(settings)
    source, given = settings.scoring.source, settings.scoring.output
    output = place_of("scoring.output", given or str(workspace.scores), SCORES)
    with quick_imports():
        from etl.cluster.workers import SparkWorkers
        from etl.contract.storage import located, ready
        from inference.batch.listing import list_images
        from inference.batch.run import score_new, show
        from inference.model.model_files import find_model
        from inference.model.served_model import open_served
    ready("scoring.output", output)
    if source:
        located("scoring.source", source)
    found = find_model(workspace, settings.inference.registered_model, package=options.model)
    model = open_served(found, settings.scoring.mode, num_threads=1)
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


if __name__ == "__main__":
    run_command(main)
