"""Runs the pipeline as its real commands: images -> shards -> training on several ranks -> INT8 model in the registry.

    python jobs/pipeline.py                                            phantoms, conf/demo.yaml
    python jobs/pipeline.py --config conf/nih.yaml --etl.source DIR    an NIH ChestX-ray14 folder

All arguments are passed to every stage. At the end, the pipeline prints a table of AUROC and writes
<workspace>/summary.json. The first stage that fails stops the pipeline with its own message and exit code.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from conf.arguments import (
    ArgumentParser,
    Resume,
    add_resume,
    add_switch,
    load_arguments,
    settings_in,
    with_same_settings,
)
from conf.errors import InputError, run_command
from conf.programs import exit_code_of, own_environment
from conf.settings import Settings
from conf.workspace import Workspace, update_summary
from training.measures.cells import value_cell

# Relative to the current folder, as a person would type it.
PROJECT = Path(os.path.relpath(Path(__file__).parent.parent))

# Key in the summary's peak_memory_mb -> the process that it measures, in the order of the stages.
MEASURED_PROCESSES = {"etl_worker": "one Spark worker", "training_rank": "one rank", "register": "the process"}
READS = ("phantoms", "etl", "training", "inference", "jobs")
RANKS_ON_CPU = 2
# Device files of the drivers of NVIDIA, of NVIDIA under WSL, and of AMD.
GPU_FILES = ("nvidia[0-9]*", "dxg", "kfd")
VARIANTS = ("baseline", "torch", "fp32", "int8")


def stages(num_ranks: int) -> dict[str, list[str]]:
    """Stage -> the command that a person would type for it."""
    # With --gloo, horovodrun does not start a process that imports torch to ask whether Horovod was built with MPI.
    launcher = ["horovodrun", "--gloo", "-np", str(num_ranks), "python"]
    # pip cannot install Horovod, which has no wheel.
    if shutil.which("horovodrun", path=own_environment()["PATH"]) is None:
        launcher = ["torchrun", "--nproc_per_node", str(num_ranks)]
    return {
        "etl": ["spark-submit", str(PROJECT / "etl/preprocess.py")],
        "training": [*launcher, str(PROJECT / "training/train.py")],
        "register": ["python", str(PROJECT / "inference/register.py")],
    }


def main() -> None:
    settings, options = load_arguments(
        "Runs all stages as the commands that a person would type.",
        "[--rebuild] [--resume [auto]] [--check]",
        add_own,
        reads=READS,
    )
    size_px, stored = settings.training.size_px, settings.etl.sizes_px
    if size_px not in stored:
        raise InputError(
            f"training.size_px is {size_px}, but etl.sizes_px is {stored}: set training.size_px to one of these, or "
            f"add {size_px} to etl.sizes_px"
        )
    workspace = Workspace.of(settings)
    # Otherwise the training would say it after the ETL's work.
    workspace.check_database()
    if options.check:
        if options.rebuild or options.resume != Resume.NO:
            raise InputError(
                "--check is for a job that gives its arguments to every stage, and not every stage takes --rebuild and "
                "--resume: leave them out, and rebuild by jobs/slurm/etl.sbatch; the training resumes by itself"
            )
        return
    console = Console()
    commands = stages(settings.jobs.num_ranks or usual_ranks(settings.training.device))
    own = {"etl": ["--rebuild"] * options.rebuild, "training": ["--resume", options.resume], "register": []}
    seconds = {}
    for number, (stage, command) in enumerate(commands.items(), start=1):
        console.print(Rule(f"[bold]{number}/{len(commands)} {stage}[/bold]  {' '.join(command)}", align="left"))
        started = time.monotonic()
        run_stage(stage, [*command, *settings_in(sys.argv[1:]), *own[stage]])
        seconds[stage] = round(time.monotonic() - started, 1)
        update_summary(workspace, seconds=seconds | {"all": round(sum(seconds.values()), 1)})
    show(console, settings, workspace)


def usual_ranks(device: str) -> int:
    """One training process per GPU of this machine, or 2 without GPUs. device: training.device."""
    if device == "cpu" or not any(any(Path("/dev").glob(pattern)) for pattern in GPU_FILES):
        return RANKS_ON_CPU
    # Imported here, because it takes seconds. It knows which GPUs CUDA_VISIBLE_DEVICES hides.
    import torch

    return torch.cuda.device_count() or RANKS_ON_CPU


def add_own(parser: ArgumentParser) -> None:
    add_switch(parser, "--rebuild", "decode every image again and replace the table, whatever it holds")
    add_switch(parser, "--check", "only check the settings of all stages, as a job on a cluster does first")
    add_resume(parser)


def run_stage(stage: str, command: list[str]) -> None:
    """Runs a command with this Python's environment first on the PATH; exits with its exit code if it fails."""
    try:
        finished = subprocess.run(command, env=own_environment(), check=False)
    except FileNotFoundError as error:
        advice = "run `make setup` first or, if pip installed CheXScale, install its extras (docs/environment.md)"
        raise InputError(f"stage {stage}: command {command[0]} not found: {advice}") from error
    if finished.returncode:
        print(
            f"error: stage {stage} failed with exit code {finished.returncode}; its message is above. "
            f"To run this stage alone: {shlex.join(command)}. To install what the machine lacks: make setup",
            file=sys.stderr,
        )
        sys.exit(exit_code_of(finished.returncode))


def show(console: Console, settings: Settings, workspace: Workspace) -> None:
    """Prints the closing tables and what to look at next."""
    summary = json.loads(workspace.summary.read_text(encoding="utf-8"))
    console.print(Rule("[bold]done[/bold]", align="left"))
    table = Table("stage", "seconds", "images/s", "peak memory", title="What it took", title_justify="left")
    # A stage that found nothing to do measured nothing; an earlier run may have.
    rates = [summary.get(part, {}).get("images_per_s") for part in ("data", "training")] + [
        summary["throughput"]["int8"]
    ]
    for stage, rate, process in zip(stages(0), rates, MEASURED_PROCESSES, strict=True):
        peak = summary.get("peak_memory_mb", {}).get(process)
        cells = (f"{rate:,.0f}", f"{peak:,} MB, {MEASURED_PROCESSES[process]}") if rate and peak else ("", "")
        table.add_row(stage, f"{summary['seconds'][stage]:.0f}", *cells)
    console.print(table)
    aurocs = summary["test_auroc"]
    means = Table("thumbnail LR", "torch", "FP32", "INT8", title="Mean AUROC, test split", title_justify="left")
    means.add_row(*(value_cell(aurocs[name]) for name in VARIANTS))
    console.print(means)
    registry = summary["registry"]
    print(f"{registry['model']} version {registry['version']} is @{', @'.join(registry['aliases'])}. Look at:")
    print(f"  1. {workspace.card_page}")
    print(f"  2. {workspace.summary}")
    print(f"  3. {workspace.figures}")
    runs, served = f"make ui WORKSPACE={settings.workspace}   ", f"make serve WORKSPACE={settings.workspace}"
    if server := settings.tracking_server:
        runs = "MLflow of the Databricks workspace" if server.startswith("databricks") else server
        served = with_same_settings(f"python {PROJECT / 'inference/serve.py'}")
    print(f"  4. {runs}    the run, its figures, and the registered model")
    print(f"  5. {served}    a page that shows findings and heat maps of your images")


if __name__ == "__main__":
    run_command(main)
