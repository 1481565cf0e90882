"""Opens MLflow's UI on the workspace: runs, figures, registered models. Ctrl-C ends it.

    python jobs/ui.py                                 the workspace of conf/demo.yaml, at http://127.0.0.1:5000
    python jobs/ui.py --workspace DIR --port 5001

MLflow looks for files where its database says. If the workspace was moved or copied, this command updates the database
first, for all programs that ask MLflow themselves. (The other commands here need no such update.)
"""

import os
import sys

from conf.arguments import ArgumentParser, load_arguments
from conf.errors import InputError, run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("workspace",)


def main() -> None:
    settings, options = load_arguments("Opens MLflow's UI on the workspace.", "", add_own, reads=READS)
    workspace = Workspace.of(settings)
    if workspace.tracking_server:
        raise InputError(f"the runs are on {workspace.tracking_server}: open this address in a browser")
    if not workspace.has_store:
        raise InputError(f"no {workspace.tracking_db} yet: run `make demo`, or name another --workspace")
    with quick_imports():
        from training.record.addresses import has_moved, settle
        from training.record.store import use_store

    use_store(workspace)
    if has_moved(workspace):
        with workspace.exclusive():
            settle(workspace)
    store = f"sqlite:///{workspace.tracking_db}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    # For one reader, MLflow's four processes are three too many: each imports for seconds and keeps its memory.
    os.execv(sys.executable, [*command, "--port", str(options.port), "--workers", "1"])


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000, help="port of this machine on which the UI listens")


if __name__ == "__main__":
    run_command(main)
