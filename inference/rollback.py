"""Makes the previous champion the champion again.

    python inference/rollback.py --why "calls too many effusions"

The registry records it like a promotion. A running service switches within seconds.
"""

from rich.console import Console

from conf.arguments import ArgumentParser, load_arguments
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("inference.registered_model",)


def main() -> None:
    settings, options = load_arguments("Makes the previous champion the champion again.", "", add_own, reads=READS)
    workspace = Workspace.of(settings)
    with quick_imports():
        from inference.model.registry import history, rollback
    name = settings.inference.registered_model
    move = rollback(workspace, name, options.why)
    console = Console(highlight=False)
    before = f"it was version {move.replaced}" if move.replaced else "there was no champion"
    moved = f"{name}@champion is version {move.version} again; before, {before}"
    console.print(moved, markup=False, soft_wrap=True)
    console.print("Its history:")
    for one in history(workspace, name):
        console.print(f"  {one.at}  version {one.version}  by {one.by}: {one.why}", markup=False, soft_wrap=True)


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument("--why", default="no reason given", help="reason, which the registry keeps")


if __name__ == "__main__":
    run_command(main)
