"""Turns images and a label file into a Delta table of patient-split shards.

    spark-submit etl/preprocess.py                                             the phantoms of conf/demo.yaml
    spark-submit etl/preprocess.py --config conf/nih.yaml --etl.source DIR     an NIH ChestX-ray14 folder

Writes <workspace>/shards, quarantine, card.json and card.html. The shards change in one commit, which carries the card:
a run that is killed, or finds too many bad images, leaves the old version in place. A second run applies only what
has changed, and commits nothing if nothing has.
"""

from conf.arguments import ArgumentParser, add_switch, load_arguments
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("phantoms", "etl")


def main() -> None:
    settings, options = load_arguments(
        "Turns images and a label file into a Delta table of patient-split shards.",
        "[--rebuild]",
        add_own,
        reads=READS,
    )
    workspace = Workspace.of(settings)
    with quick_imports():
        from etl.writing.run import run
    run(settings, workspace, options.rebuild)


def add_own(parser: ArgumentParser) -> None:
    add_switch(parser, "--rebuild", "decode every image again and replace the table, whatever it holds")


if __name__ == "__main__":
    run_command(main)
