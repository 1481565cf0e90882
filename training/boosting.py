"""Fits gradient boosting to age, sex and view alone: a baseline that sees no film, and a member for an ensemble.

    python training/boosting.py --workspace runs/boosting --etl.table runs/demo

It writes evaluation.json, predictions.parquet, figures/, a checkpoint and one MLflow run into --workspace, as a
training does. An AUROC far above 0.5 says how much the labels go along with who was examined, and how.
"""

from conf.arguments import load_settings
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("etl.table", "training.delta_version", "training.seed", "training.experiment")


def main() -> None:
    settings = load_settings("Fits gradient boosting to age, sex and view alone.", reads=READS)
    workspace = Workspace.of(settings)
    with quick_imports():
        from training.ensembles.boosting import run
    run(settings, workspace)


if __name__ == "__main__":
    run_command(main)
