"""Makes a registered version the champion by hand, so that it is served from now on.

    python inference/promote.py                                              the challenger, which is the newest version
    python inference/promote.py 3 --why "accepted by the study's board"      version 3

The registry records who did it, when and why; `python inference/rollback.py` undoes it. A running service switches to
the new champion within seconds, without dropping a request.
"""

from rich.console import Console

from conf.arguments import ArgumentParser, load_arguments, with_same_settings
from conf.errors import InputError, run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("inference.registered_model",)


def main() -> None:
    settings, options = load_arguments("Makes a registered version the champion.", "[VERSION]", add_own, reads=READS)
    workspace, name = Workspace.of(settings), settings.inference.registered_model
    with quick_imports():
        from inference.model.registry import CHALLENGER, promote, version_of
    number = options.version or version_of(workspace, name, CHALLENGER)
    if number is None:
        raise InputError(f"no version of {name}: run `python inference/register.py` first")
    move = promote(workspace, name, number, options.why)
    before = f"before, it was version {move.replaced}" if move.replaced else "there was none before"
    console = Console(highlight=False)
    console.print(f"{name}@champion is now version {number}; {before}", markup=False, soft_wrap=True)
    console.print(f"To undo it: {with_same_settings('python inference/rollback.py')}", markup=False, soft_wrap=True)


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument(
        "version", nargs="?", type=int, default=0, help="number of the registered version; if omitted, the challenger"
    )
    parser.add_argument("--why", default="promoted by hand", help="reason, which the registry keeps")


if __name__ == "__main__":
    run_command(main)
