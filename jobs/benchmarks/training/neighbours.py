"""What does a busy neighbour cost, if OpenMP's threads spin for long or briefly while they wait for each other?

    python -m jobs.benchmarks.training.neighbours                         resnet10_half at 96 pixels, two threads
    python -m jobs.benchmarks.training.neighbours --model densenet121 --size_px 224 --seconds 10 --neighbours 0 1 2

Two processes do the same work, training steps and then inference on random images, and take turns: in one, OpenMP's
threads spin as by default (GOMP_SPINCOUNT=300000), in another one they spin briefly, as conf/openmp.py has it, and in
the last one not at all (OMP_WAIT_POLICY=PASSIVE). A neighbour is a process that counts for ever. Prints images/s, and
the ratios to spinning as by default.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command
from conf.openmp import BRIEFLY, WAITING
from jobs.benchmarks.training.fed import FedTrainer, alone
from jobs.benchmarks.training.ranks import build_trainer
from training.loop.trainer import inputs
from training.ranks.collectives import Collectives
from training.ranks.memory import keep_freed_memory

# The first one is the default of GNU's OpenMP, which conf/openmp.py would replace if nothing were set (its env.c).
WAYS = {"long": {"GOMP_SPINCOUNT": "300000"}, "briefly": BRIEFLY, "never": {"OMP_WAIT_POLICY": "PASSIVE"}}
WORKS = ("training", "inference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet10_half", help="model, as in training.model (default resnet10_half)")
    parser.add_argument("--size_px", type=int, default=96, help="side of the images (default 96)")
    parser.add_argument("--batch_size", type=int, default=16, help="images per step (default 16)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the work (default 2)")
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1], help="busy processes (default 0 1)")
    parser.add_argument("--seconds", type=float, default=4, help="seconds of a turn (default 4)")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each kind (default 5)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments)
    speeds: dict[tuple[str, int], list[list[float]]] = {}
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(waiting)) for waiting in WAYS.values()]
        for repetition in range(arguments.repetitions + 1):
            for kind in WORKS:
                for number in arguments.neighbours:
                    with busy(number):
                        measured = [ask(kind) for ask in workers]
                    if repetition:
                        speeds.setdefault((kind, number), []).append(measured)
    show(speeds, arguments)
    return None


@contextmanager
def worker(waiting: dict[str, str]) -> Iterator[Callable[[str], float]]:
    """Starts a process whose threads wait like this; gives a function that returns its images/s of a kind of work."""
    environ = {name: value for name, value in os.environ.items() if name not in WAITING} | waiting
    command = [sys.executable, "-m", "jobs.benchmarks.training.neighbours", *sys.argv[1:], "--work"]
    process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(kind: str) -> float:
        process.stdin.write(f"{kind}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise InputError(f"{' '.join(command)} ended with exit code {process.wait()}: its message is above")
        return float(answer)

    with process:
        yield ask
        process.stdin.close()


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Runs this many processes that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def work(arguments: argparse.Namespace) -> None:
    """Reads kinds of work from standard input, and prints images/s of each."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    # An epoch has as many steps as a turn can take.
    arguments.steps = 100_000
    trainer = build_trainer(arguments, Collectives(alone("cpu")))
    steps = trainer.train_epoch(0)
    for line in sys.stdin:
        started, images = time.perf_counter(), 0
        while time.perf_counter() < started + arguments.seconds:
            images += next(steps) if line.strip() == "training" else infer(trainer)
        print(images / (time.perf_counter() - started), flush=True)


def infer(trainer: FedTrainer) -> int:
    """Answers one batch; returns its number of images."""
    trainer.model.eval()
    batch = trainer.batches[0]
    with torch.inference_mode():
        trainer.model(*inputs(batch.pixels, batch.attributes))
    trainer.model.train()
    return len(batch.labels)


def show(speeds: dict[tuple[str, int], list[list[float]]], arguments: argparse.Namespace) -> None:
    """speeds: (work, neighbours) -> images/s of each way, for each turn."""
    first, *others = WAYS
    columns = [f"spin {first}: images/s", *(f"{way}: images/s, ratio (range)" for way in others)]
    table = Table("work", "busy", *columns)
    for (kind, number), turns in speeds.items():
        cells = [f"{statistics.median(way):.0f}" for way in zip(*turns, strict=True)]
        for index in range(1, len(WAYS)):
            ratios = [turn[index] / turn[0] for turn in turns]
            cells[index] += f", {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(kind, str(number), *cells)
    cores = len(os.sched_getaffinity(0))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    table.caption = (
        f"{arguments.threads} threads, {cores} cores; busy: neighbours; load, with this benchmark's own: {load}"
    )
    Console().print(table)


if __name__ == "__main__":
    run_command(main)
