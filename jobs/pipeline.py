"""The whole way as the real commands: images -> shards -> training on several ranks -> INT8 model in the registry.

    python jobs/pipeline.py                                            phantoms, conf/demo.yaml
    python jobs/pipeline.py --config conf/nih.yaml --etl.source DIR    an NIH ChestX-ray14 folder

All arguments go to every stage. Ends with the AUROC table and writes <workspace>/summary.json. The first stage that
fails stops the pipeline with its own message and exit code.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from conf.errors import InputError, run_command
from conf.settings import Settings, load_settings
from conf.workspace import Workspace, update_summary

# As one types them: relative to where one stands.
PROJECT = Path(os.path.relpath(Path(__file__).parent.parent))

# Key in the summary's peak_memory_mb -> what it is the memory of, in the order of the stages.
MEASURED_PROCESSES = {"etl_worker": "one Spark worker", "training_rank": "one rank", "register": "the process"}
VARIANTS = ("baseline", "torch", "fp32", "int8")


def stages(num_ranks: int) -> dict[str, list[str]]:
    """Stage -> the command that a person would type for it."""
    return {
        "etl": ["spark-submit", str(PROJECT / "etl/preprocess.py")],
        "training": ["horovodrun", "-np", str(num_ranks), "python", str(PROJECT / "training/train.py")],
        "register": ["python", str(PROJECT / "inference/register.py")],
    }


def main() -> None:
    settings = load_settings("Runs all stages as the commands that a person would type.")
    workspace = Workspace.at(settings.workspace)
    workspace.summary.unlink(missing_ok=True)
    console = Console()
    commands = stages(settings.jobs.num_ranks)
    seconds = {}
    for number, (stage, command) in enumerate(commands.items(), start=1):
        console.print(Rule(f"[bold]{number}/{len(commands)} {stage}[/bold]  {' '.join(command)}", align="left"))
        started = time.monotonic()
        run_stage(stage, [*command, *sys.argv[1:]])
        seconds[stage] = round(time.monotonic() - started, 1)
        update_summary(workspace, seconds=seconds | {"all": round(sum(seconds.values()), 1)})
    show(console, settings, workspace)


def run_stage(stage: str, command: list[str]) -> None:
    """Runs a command with this Python's environment first on the PATH; ends with its exit code when it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    try:
        finished = subprocess.run(command, env={**os.environ, "PATH": path}, check=False)
    except FileNotFoundError as error:
        raise InputError(f"stage {stage}: no command {command[0]}: run `make setup` first") from error
    if finished.returncode:
        print(
            f"error: stage {stage} failed with exit code {finished.returncode}, its message stands above. "
            f"The stage alone: {shlex.join(command)}; what the machine lacks: make setup",
            file=sys.stderr,
        )
        # A stage that a signal ended has a negative code: as shells do, 128 and the signal.
        sys.exit(finished.returncode if finished.returncode > 0 else 128 - finished.returncode)


def show(console: Console, settings: Settings, workspace: Workspace) -> None:
    """The closing tables and the things to look at next."""
    summary = json.loads(workspace.summary.read_text(encoding="utf-8"))
    console.print(Rule("[bold]done[/bold]", align="left"))
    table = Table("stage", "seconds", "images/s", "peak memory", title="What it took", title_justify="left")
    rates = (summary["data"]["images_per_s"], summary["training"]["images_per_s"], summary["throughput"]["int8"])
    for stage, rate, process in zip(stages(0), rates, MEASURED_PROCESSES, strict=True):
        peak = f"{summary['peak_memory_mb'][process]:,} MB, {MEASURED_PROCESSES[process]}"
        table.add_row(stage, f"{summary['seconds'][stage]:.0f}", f"{rate:,.0f}", peak)
    console.print(table)
    aurocs = summary["test_auroc"]
    means = Table("thumbnail LR", "torch", "FP32", "INT8", title="Mean AUROC, test split", title_justify="left")
    means.add_row(*("-" if aurocs[name] is None else f"{aurocs[name]:.3f}" for name in VARIANTS))
    console.print(means)
    registry = summary["registry"]
    print(f"{registry['model']} version {registry['version']} is @{', @'.join(registry['aliases'])}. Look at:")
    print(f"  1. {workspace.card_page}")
    print(f"  2. {workspace.summary}")
    print(f"  3. {workspace.figures}")
    print(f"  4. make ui WORKSPACE={settings.workspace}       the run, its figures, and the registered model")
    print(f"  5. make serve WORKSPACE={settings.workspace}    a page that shows findings and heat maps of your images")


if __name__ == "__main__":
    run_command(main)
