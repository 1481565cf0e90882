"""Measures how soon the service in a container answers, and how large the images are.

    podman build --format docker -f jobs/container/Containerfile --target serving -t chexscale-serving .
    python -m jobs.benchmarks.service.container --workspace DIR      the workspace of a champion (default runs/demo)

Starts the service in turns: in a container of the image `serving` that may write nothing, and in this environment.
Prints the seconds from the start of the command to the first finding, and the size of each image that was built.
"""

import argparse
import json
import statistics
import subprocess

from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command
from conf.workspace import Workspace
from jobs.benchmarks.service.servers import first_finding_s, service_command

TARGETS = ("serving", "server", "etl", "training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs/demo", help="workspace with a champion (default runs/demo)")
    parser.add_argument("--engine", default="podman", help="podman or docker (default podman)")
    parser.add_argument("--repetitions", type=int, default=5, help="starts of each (default 5)")
    arguments = parser.parse_args()
    sizes = {target: size_mb(arguments.engine, target) for target in TARGETS}
    if not sizes["serving"]:
        raise InputError(f"{arguments.engine} has no image chexscale-serving: build it as `--help` shows")
    workspace = Workspace.at(arguments.workspace)
    here = service_command(workspace, "int8")
    inside = container_command(arguments.engine, workspace)
    seconds = [(first_finding_s(here), first_finding_s(inside)) for _ in range(arguments.repetitions)]
    table = Table("what", "measured")
    for name, of_all in zip(("in this environment", "in a container"), zip(*seconds, strict=True), strict=True):
        table.add_row(f"first finding {name}, s", spread(of_all))
    table.add_row("container to environment", spread([container / own for own, container in seconds]))
    for target, size in sizes.items():
        table.add_row(f"image {target}, MB", f"{size:,.0f}" if size else "not built")
    Console().print(table)


def size_mb(engine: str, target: str) -> float | None:
    """Returns the size of an image, uncompressed; None if there is no such image."""
    found = subprocess.run(
        [engine, "image", "inspect", f"chexscale-{target}"], capture_output=True, text=True, check=False
    )
    return json.loads(found.stdout)[0]["Size"] / 1e6 if found.returncode == 0 else None


def container_command(engine: str, workspace: Workspace) -> list[str]:
    """The command that docs/clusters.md has, with this machine's network and any free port."""
    limits = ["--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--network=host"]
    service = ["python", "inference/serve.py", "--workspace=/workspace", "--serving.port=0"]
    mounted = f"--volume={workspace.root}:/workspace:ro"
    return [engine, "run", *limits, mounted, "chexscale-serving", *service, "--serving.requests_per_minute=0"]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    run_command(main)
