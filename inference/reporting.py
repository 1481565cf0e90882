"""Prints the reporting sheet of a model: what a report must say (CLAIM 2024, TRIPOD+AI), and who must still say it.

    python inference/reporting.py                      the champion
    python inference/reporting.py 3 > reporting.md     version 3
    python inference/reporting.py --model FILE         a package, which needs no registry

The sheet is reporting.md of the registered model, with the external tests that were made since. Research use only, not
for clinical use.
"""

import json

from conf.arguments import ArgumentParser, add_model, load_arguments
from conf.errors import InputError, run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("inference.registered_model",)


def main() -> None:
    settings, options = load_arguments("Prints the reporting sheet of a model.", "[VERSION]", add_own, reads=READS)
    workspace = Workspace.of(settings)
    with quick_imports():
        from inference.model.model_files import CHAMPION, find_model
        from inference.model.properties import CARD_FILE
        from inference.model.reporting.sheet import to_sheet
    wanted = str(options.version) if options.version else CHAMPION
    found = find_model(workspace, settings.inference.registered_model, wanted, options.model)
    if not (found.folder / CARD_FILE).exists():
        raise InputError(f"{found.title} has no {CARD_FILE}: register the checkpoint again, or give another version")
    card = json.loads((found.folder / CARD_FILE).read_text(encoding="utf-8"))
    if not found.package:
        # Imported here, because a package needs no MLflow, installed or not.
        from inference.model.registry import tests_of

        card["tested_at"] = tests_of(workspace, found.name, found.version)
    print(to_sheet(card), end="")


def add_own(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "version", nargs="?", type=int, default=0, help="number of the registered version; if omitted, the champion"
    )


if __name__ == "__main__":
    run_command(main)
