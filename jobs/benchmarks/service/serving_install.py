"""Measures how large an environment for serving is, and how soon its service answers.

    python -m jobs.benchmarks.service.serving_install --workspace DIR   the workspace of a champion (default runs/demo)

Makes a fresh environment in a temporary folder, from the package index or uv's cache. It has only what
`pip install '.[serving]'` asks for, in the versions of requirements.lock. Then starts the service in it several times.
Prints the size, the largest packages, and the seconds from the start of the process to the first finding.
"""

import argparse
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.errors import run_command
from conf.workspace import Workspace
from jobs.benchmarks.service.servers import first_finding_s, service_command
from jobs.setup.installer import find_uv
from jobs.setup.places import LOCK, ROOT

SHOWN_PACKAGES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs/demo", help="workspace with a champion (default runs/demo)")
    parser.add_argument("--repetitions", type=int, default=5, help="number of starts of the service (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        environment = Path(temporary, "environment")
        install(environment, Path(temporary, "versions.txt"))
        workspace = Workspace.at(arguments.workspace)
        command = service_command(workspace, "int8", str(environment / "bin" / "python"))
        seconds = [first_finding_s(command) for _ in range(arguments.repetitions)]
        packages = sorted(((size_mb(path), path.name) for path in site_packages(environment).iterdir()), reverse=True)
        table = Table("what", "measured")
        table.add_row("environment, MB", f"{size_mb(environment):.0f}")
        table.add_row(
            "largest packages, MB", ", ".join(f"{name} {size:.0f}" for size, name in packages[:SHOWN_PACKAGES])
        )
        table.add_row(
            "first finding, s", f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        )
        Console().print(table)


def install(environment: Path, versions: Path) -> None:
    """Makes the environment; compiles bytecode, as set-up does."""
    versions.write_text("\n".join(re.findall(r"^[\w.-]+==\S+", LOCK.read_text(encoding="utf-8"), re.MULTILINE)))
    uv = str(find_uv())
    subprocess.run([uv, "venv", "--quiet", "--python", "3.11", str(environment)], check=True)
    command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(environment / "bin" / "python")]
    subprocess.run([*command, "--constraint", str(versions), f"{ROOT}[serving]"], check=True)


def site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python3*/site-packages"))


def size_mb(path: Path) -> float:
    """Returns the size of a file, or of all files below a folder, in 10**6 bytes."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.lstat().st_size for file in files if not file.is_dir()) / 1e6


if __name__ == "__main__":
    run_command(main)
