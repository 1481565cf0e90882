"""Trains a network that finds the lungs, on the films of the last ETL that have masks; one process, minutes on a CPU.

    python etl/preprocess.py --phantoms.masks true --etl.masks masks      a table with masks, here of phantoms
    python training/lungs.py                                              trains on it
    python training/lungs.py --lungs.epochs 2                             a quick try

It reads <workspace>/shards at the version that card.json names, or the table at etl.table. It writes lungs/network.pt
(the epoch with the best overlap on the validation split), lungs/report.json, and one MLflow run.
"""

from conf.arguments import load_settings
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("lungs", "etl.table")


def main() -> None:
    settings = load_settings("Trains a network that finds the lungs, on films with masks.", reads=READS)
    workspace = Workspace.of(settings)
    with quick_imports():
        from training.segmentation.run import run
    run(settings, workspace)


if __name__ == "__main__":
    run_command(main)
