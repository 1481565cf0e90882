"""Tests a registered model on labelled films of another hospital.

    python inference/validate.py --scoring.source DIR --etl.format csv       the champion, on a folder with its labels
    python inference/validate.py --scoring.source WORKSPACE                  on the table of another workspace
    python inference/validate.py --scoring.source DIR 3                      version 3

It writes <workspace>/external/SITE: AUROC of each shared finding with its interval by patient and its change from the
model's own test split, calibration, sensitivity, specificity and predictive values at the shipped thresholds, missed
findings by group, tables and figures. It records them in an MLflow run, and in a tag of the version. Films and patients
that the model's training has seen are refused, or left out by name. Research use only, not for clinical use.
"""

from conf.arguments import ArgumentParser, load_arguments
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = (
    "etl",
    "scoring.source",
    "scoring.mode",
    "validation",
    "training.seed",
    "inference.registered_model",
    "inference.batch_size",
)


def main() -> None:
    settings, options = load_arguments(
        "Tests a registered model on labelled films of another hospital.", "[VERSION]", add_own, reads=READS
    )
    workspace = Workspace.of(settings)
    with quick_imports():
        from inference.external.run import run
        from inference.model.model_files import CHAMPION
    run(settings, workspace, str(options.version) if options.version else CHAMPION)


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument(
        "version", nargs="?", type=int, default=0, help="number of the registered version; if omitted, the champion"
    )


if __name__ == "__main__":
    run_command(main)
