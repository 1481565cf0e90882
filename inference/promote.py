"""Makes a registered version the champion, by hand: what is served from now on.

    python inference/promote.py                                                      the challenger, the newest version
    python inference/promote.py --inference.version 3 --inference.why "accepted by the study's board"

Who did it, when and why is written down in the registry, and `python inference/rollback.py` takes it back. A running
service changes over within seconds, without dropping a request.
"""

from rich.console import Console

from conf.errors import InputError, run_command
from conf.settings import load_settings, with_same_arguments
from conf.workspace import Workspace
from inference.model.registry import CHALLENGER, promote, version_of


def main() -> None:
    settings = load_settings("Makes a registered version the champion.")
    workspace = Workspace.at(settings.workspace, settings.tracking_server)
    options = settings.inference
    number = options.version or version_of(workspace, options.registered_model, CHALLENGER)
    if number is None:
        raise InputError(f"no version of {options.registered_model}: run `python inference/register.py` first")
    move = promote(workspace, options.registered_model, number, options.why or "promoted by hand")
    before = f"before it was version {move.replaced}" if move.replaced else "there was none before"
    console = Console(highlight=False)
    console.print(f"{options.registered_model}@champion is version {number} now, {before}", soft_wrap=True)
    console.print(
        f"To take it back: {with_same_arguments('python inference/rollback.py')}", markup=False, soft_wrap=True
    )


if __name__ == "__main__":
    run_command(main)
