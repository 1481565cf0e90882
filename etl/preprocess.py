"""Images and label file to a Delta table of patient-split shards.

    spark-submit etl/preprocess.py                                             the phantoms of conf/demo.yaml
    spark-submit etl/preprocess.py --config conf/nih.yaml --etl.source DIR     an NIH ChestX-ray14 folder

Writes <workspace>/shards, quarantine, card.json. The card is written last: a run that is killed, or finds too many bad
images, leaves the old card, and with it the old version for training.
"""

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.errors import run_command
from conf.settings import Settings, load_settings, with_same_arguments
from conf.workspace import Workspace, update_summary
from etl.phantoms import generate_phantoms
from etl.publish import publish
from etl.schema import SPLITS, Card
from etl.shards import start_spark
from etl.sources import read_manifest


def main() -> None:
    settings = load_settings("Images and label file to a Delta table of patient-split shards.")
    workspace = Workspace.at(settings.workspace)
    with workspace.exclusive():
        run(settings, workspace)
    print("Next: " + with_same_arguments("horovodrun -np 2 python training/train.py"))


def run(settings: Settings, workspace: Workspace) -> None:
    """Source to table and card."""
    source = Path(settings.etl.source).expanduser().absolute()
    if settings.etl.source == "phantoms":
        source = workspace.phantoms
        generate_phantoms(source, settings.phantoms)
    manifest = read_manifest(source, settings.etl)
    started = time.monotonic()
    spark = start_spark()
    card, observed = publish(spark, settings, workspace, source, manifest)
    seconds = time.monotonic() - started
    spark.stop()
    images = sum(card.images.values())
    update_summary(
        workspace,
        data={
            "images": images,
            "quarantined": card.images_quarantined,
            "patients": sum(card.patients.values()),
            "images_per_split": card.images,
            "delta_version": card.delta_version,
            "images_per_s": round(images / seconds, 1),
        },
        peak_memory_mb={"etl_worker": round(observed["worker_peak_mb"])},
    )
    show(card, images / seconds)


def show(card: Card, images_per_s: float) -> None:
    """Prints what became of the images."""
    table = Table(title=f"Delta version {card.delta_version}, images and patients per split", title_justify="left")
    for column in ("", *SPLITS, "sum"):
        table.add_column(column, justify="right" if column else "left")
    for name, counts in (("images", card.images), ("patients", card.patients)):
        table.add_row(name, *(f"{counts[split]:,}" for split in SPLITS), f"{sum(counts.values()):,}")
    Console().print(table)
    print(
        f"{card.images_listed:,} listed = {sum(card.images.values()):,} rows + {card.images_quarantined:,} quarantined "
        f"+ {card.images_absent:,} absent; {card.images_unlisted:,} files not listed; {images_per_s:.0f} images/s"
    )


if __name__ == "__main__":
    run_command(main)
