"""Finds labels of the table that are probably wrong, for people to judge.

    python training/label_quality.py                              labels of the validation and test split
    python training/label_quality.py --label_quality.trainings '["runs/fold0", "runs/fold1"]'     of all their folds

It compares the labels with what trainings predict for patients whom they have not learned from. It writes
<workspace>/label_quality: suspects.csv (ranked per finding), report.md and report.json (estimated shares of wrong
labels, with intervals by patient), page.html (the films with heat maps), and to_judge.csv, which a person fills in and
the ETL takes as corrections (--etl.corrections). Research use only, not for clinical use.
"""

from conf.arguments import load_settings
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("label_quality", "training.seed", "etl.table")


def main() -> None:
    settings = load_settings("Finds labels of the table that are probably wrong, for people to judge.", reads=READS)
    workspace = Workspace.of(settings)
    with quick_imports():
        from training.suspects.run import run
    run(settings, workspace)


if __name__ == "__main__":
    run_command(main)
