"""Makes the champion before the present one champion again.

    python inference/rollback.py --inference.why "calls too many effusions"

Recorded in the registry as a promotion is. A running service changes over within seconds.
"""

from rich.console import Console

from conf.errors import run_command
from conf.settings import load_settings
from conf.workspace import Workspace
from inference.model.registry import history, rollback


def main() -> None:
    settings = load_settings("Makes the champion before the present one champion again.")
    workspace = Workspace.at(settings.workspace, settings.tracking_server)
    name = settings.inference.registered_model
    move = rollback(workspace, name, settings.inference.why or "no reason given")
    console = Console(highlight=False)
    console.print(f"{name}@champion is version {move.version} again, before it was version {move.replaced}")
    console.print("Its history:")
    for one in history(workspace, name):
        console.print(f"  {one.at}  version {one.version}  by {one.by}: {one.why}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
