"""What does exchanging gradients cost? Measures several ranks against one with the same work each.

    python -m jobs.benchmarks.training.ranks                                    resnet10_half at 96 pixels
    python -m jobs.benchmarks.training.ranks --model densenet121 --size_px 128 --steps 5

A rank has one thread on one core, and its batches are in memory. Within one start of the launcher, three kinds of turn
alternate: rank 0 alone while the others wait; all ranks side by side without communication, which shows what sharing
the memory bandwidth costs; all ranks as in training. So each ratio compares processes that ran within the same seconds.
Each launcher, Horovod and torchrun, starts two ranks and then four, of which two share each core of a machine with two.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command
from conf.settings import Training
from jobs.benchmarks.training.fed import NUM_FINDINGS, FedTrainer, alone, measured, print_measured, random_batch
from training.loop.trainer import Trainer
from training.network.build import build_model
from training.ranks.collectives import Collectives
from training.ranks.memory import keep_freed_memory
from training.ranks.topology import Topology
from training.reading.plan import Plan, Split

LAUNCHERS = {"horovodrun": ["horovodrun", "-np"], "torchrun": ["torchrun", "--nproc_per_node"]}
ALONE, BESIDE, TOGETHER = "alone", "side by side", "exchanging"


def main() -> None:
    arguments = parse_arguments(__doc__)
    if arguments.rank:
        return measure_rank(arguments)
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        raise InputError("two ranks side by side need two cores, but this process has 1: start it with more")
    results = {}
    for launcher, ranks in itertools.product(LAUNCHERS, (2, 4)):
        print(f"measuring {ranks} ranks, {launcher}", flush=True)
        results[launcher, ranks] = launch(launcher, ranks)
    show(results, arguments)
    return None


def parse_arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet10_half", help="model, as in training.model (default resnet10_half)")
    parser.add_argument("--size_px", type=int, default=96, help="side of the images (default 96)")
    parser.add_argument("--batch_size", type=int, default=16, help="images per rank and step (default 16)")
    parser.add_argument("--steps", type=int, default=20, help="steps of one turn (default 20)")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each kind (default 5)")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def launch(launcher: str, ranks: int) -> dict:
    """Starts `ranks` ranks on this machine and returns what rank 0 measured. Raises InputError if they fail."""
    command = [*LAUNCHERS[launcher], str(ranks), sys.executable, "-m", "jobs.benchmarks.training.ranks"]
    if launcher == "torchrun":
        command = [*LAUNCHERS[launcher], str(ranks), "-m", "jobs.benchmarks.training.ranks"]
    done = subprocess.run([*command, *sys.argv[1:], "--rank"], capture_output=True, text=True)
    result = measured(done.stdout)
    if done.returncode or result is None:
        raise InputError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return result


def measure_rank(arguments: argparse.Namespace) -> None:
    """Runs one rank; rank 0 prints the seconds per step of each turn, by kind."""
    topology = Topology.detect("cpu")
    cores = sorted(os.sched_getaffinity(0))
    # Set before any thread starts, because threads inherit it.
    os.sched_setaffinity(0, {cores[topology.rank % len(cores)]})
    torch.set_num_threads(1)
    keep_freed_memory()
    ranks = Collectives(topology)
    together, single = (build_trainer(arguments, part) for part in (ranks, Collectives(alone("cpu"))))
    turns = {ALONE: single if topology.is_main else None, BESIDE: single, TOGETHER: together}
    seconds: dict[str, list[float]] = {kind: [] for kind in turns}
    for repetition in range(arguments.repetitions + 1):
        for kind, trainer in turns.items():
            ranks.gather(None)
            own = seconds_per_step(trainer, repetition) if trainer else 0.0
            slowest = max(ranks.gather(own))
            if repetition:
                seconds[kind].append(slowest)
    if topology.is_main:
        print_measured(seconds)
    ranks.gather(None)
    ranks.close()


def build_trainer(arguments: argparse.Namespace, ranks: Collectives, precision: str = "fp32") -> FedTrainer:
    """Makes a trainer of random images and labels, whose content does not change the time."""
    torch.manual_seed(0)
    world_size, side = ranks.topology.world_size, arguments.size_px
    row_groups = [arguments.batch_size * arguments.steps] * world_size
    plan = Plan.of(Split("train", [], row_groups, side), arguments.batch_size, world_size)
    settings = Training(
        model=arguments.model, size_px=side, batch_size=arguments.batch_size, schedule="constant", precision=precision
    )
    model = build_model(settings.model, NUM_FINDINGS, 127, 70, size_px=side)
    trainer = FedTrainer(model, settings, plan, torch.ones(NUM_FINDINGS), ranks)
    trainer.batches = [random_batch(arguments.batch_size, side)] * plan.steps
    return trainer


def seconds_per_step(trainer: Trainer, epoch: int) -> float:
    """Returns the mean seconds of the steps after the first."""
    ends = [time.perf_counter() for _ in trainer.train_epoch(epoch)]
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def show(results: dict[tuple[str, int], dict], arguments: argparse.Namespace) -> None:
    names = ("images/s exchanging", "side by side to alone", "exchanging to side by side", "exchanging to alone")
    caption = "medians of ratios of seconds per step: 1.10 is 10% more"
    table = Table("ranks", "ms of a step alone", *names, caption=caption)
    for (launcher, ranks), result in results.items():
        alone, beside, together = (np.array(result[kind]) for kind in (ALONE, BESIDE, TOGETHER))
        ratios = [f"{np.median(ratio):.3f}" for ratio in (beside / alone, together / beside, together / alone)]
        speed = ranks * arguments.batch_size / np.median(together)
        table.add_row(f"{ranks}, {launcher}", f"{1000 * np.median(alone):.0f}", f"{speed:.0f}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    run_command(main)
