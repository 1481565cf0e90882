"""Combines what several finished trainings predict, and measures the ensemble like one model.

    python training/ensemble.py --workspace runs/both --ensemble.members '["runs/a", "runs/b"]'
    python training/ensemble.py ... --ensemble.method weights      voting weights per finding, fitted on the validation

It reads each member's predictions.parquet, evaluation.json and checkpoint, and the patients from the table of the first
member. It writes the same three files, card.json, figures/ and one MLflow run into --workspace, from which
inference/register.py makes one graph. It runs no model and reads no image.
"""

from conf.arguments import load_settings
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("ensemble", "training.seed", "training.experiment")


def main() -> None:
    settings = load_settings(
        "Combines what several finished trainings predict, and measures the ensemble.", reads=READS
    )
    workspace = Workspace.of(settings)
    with quick_imports():
        from training.ensembles.run import run
    run(settings, workspace)


if __name__ == "__main__":
    run_command(main)
