"""What the exchange of gradients costs: two ranks against one with the same work each, measured; many nodes, modelled.

    python -m jobs.benchmarks.training.ranks --figure ranks.png                          resnet10_half at 96 pixels
    python -m jobs.benchmarks.training.ranks --model densenet121 --size_px 128 --steps 5 --figure ranks.png

A rank has one thread and one core, on which its batches wait in memory. Inside one start of the launcher take turns:
rank 0 alone while the others wait; all ranks side by side without a word to each other (what sharing the memory's
bandwidth costs); all ranks as in training. So the ratios are of processes that ran within the same seconds. Two ranks
by Horovod and by torchrun, then four, of which two share each core. Prints a table and draws a figure.

The model behind the lines of the figure, for a ring all-reduce (Patarasuk and Yuan, "Bandwidth optimal all-reduce
algorithms for clusters of workstations", JPDC 2009):

    t(n) = compute + exchange(n)        exchange(n) = 2 (n-1)/n * bytes / bandwidth + 2 (n-1) * latency

It takes every node for one measured rank, lets no exchange hide behind the backward pass (which both launchers try),
counts all bytes as one message, and knows neither stragglers nor a network that others use, nor the reading.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command
from conf.settings import Training
from conf.workspace import atomic_path
from jobs.benchmarks.training.step import FedTrainer
from training.loop.trainer import Trainer
from training.network.models import build_model
from training.ranks.collectives import Collectives
from training.ranks.memory import keep_freed_memory
from training.ranks.topology import Topology
from training.reading.plan import Plan, Split
from training.reading.readers import Batch

NUM_FINDINGS = 14
LAUNCHERS = {"horovodrun": ["horovodrun", "-np"], "torchrun": ["torchrun", "--nproc_per_node"]}
ALONE, BESIDE, TOGETHER = "alone", "side by side", "exchanging"
NODES = (8, 64, 256)


def main() -> None:
    arguments = parse_arguments()
    if arguments.rank:
        return measure_rank(arguments)
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        raise InputError("two ranks side by side need two cores, this process has 1: start it with more")
    measured = {}
    for launcher, ranks in itertools.product(LAUNCHERS, (2, 4)):
        print(f"measuring {ranks} ranks, {launcher}", flush=True)
        measured[launcher, ranks] = launch(launcher, ranks)
    show(measured, arguments)
    draw(measured, arguments)
    print(f"The figure is {arguments.figure}")
    return None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, help="the file to draw (PNG)", required=True)
    parser.add_argument("--model", default="resnet10_half", help="as training.model (default resnet10_half)")
    parser.add_argument("--size_px", type=int, default=96, help="side of the images (default 96)")
    parser.add_argument("--batch_size", type=int, default=16, help="images per rank and step (default 16)")
    parser.add_argument("--steps", type=int, default=20, help="of one turn (default 20)")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each kind (default 5)")
    parser.add_argument(
        "--gbit_per_s", type=float, nargs="+", default=[10, 100], help="of the network (default 10 100)"
    )
    parser.add_argument("--latency_us", type=float, default=50, help="of a message (default 50)")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def launch(launcher: str, ranks: int) -> dict:
    """What rank 0 of `ranks` on this machine has measured. Raises InputError where they fail."""
    command = [*LAUNCHERS[launcher], str(ranks), sys.executable, "-m", "jobs.benchmarks.training.ranks"]
    if launcher == "torchrun":
        command = [*LAUNCHERS[launcher], str(ranks), "-m", "jobs.benchmarks.training.ranks"]
    done = subprocess.run([*command, *sys.argv[1:], "--rank"], capture_output=True, text=True)
    found = [line.partition("MEASURED ")[2] for line in done.stdout.splitlines() if "MEASURED " in line]
    if done.returncode or not found:
        raise InputError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(found[0])


def measure_rank(arguments: argparse.Namespace) -> None:
    """One rank's part; rank 0 prints seconds per step of each turn, by kind, and the bytes of the gradients."""
    topology = Topology.detect("cpu")
    cores = sorted(os.sched_getaffinity(0))
    # Before any thread is there: threads inherit it.
    os.sched_setaffinity(0, {cores[topology.local_rank % len(cores)]})
    torch.set_num_threads(1)
    keep_freed_memory()
    ranks = Collectives(topology)
    together, single = (
        build_trainer(arguments, part) for part in (ranks, Collectives(Topology("none", 0, 1, 0, 1, "cpu")))
    )
    turns = {ALONE: single if topology.is_main else None, BESIDE: single, TOGETHER: together}
    seconds: dict[str, list[float]] = {kind: [] for kind in turns}
    for repetition in range(arguments.repetitions + 1):
        for kind, trainer in turns.items():
            ranks.gather(None)
            own = seconds_per_step(trainer, repetition) if trainer else 0.0
            slowest = max(ranks.gather(own))
            if repetition:
                seconds[kind].append(slowest)
    num_bytes = 4 * sum(weight.numel() for weight in single.model.parameters())
    if topology.is_main:
        print("\nMEASURED " + json.dumps({"seconds": seconds, "bytes": num_bytes}), flush=True)
    ranks.gather(None)
    ranks.close()


def build_trainer(arguments: argparse.Namespace, ranks: Collectives) -> FedTrainer:
    """Of random images and labels: what they show changes no time."""
    torch.manual_seed(0)
    world_size, side = ranks.topology.world_size, arguments.size_px
    row_groups = [arguments.batch_size * arguments.steps] * world_size
    plan = Plan.of(Split("train", [], row_groups, side), arguments.batch_size, world_size)
    settings = Training(model=arguments.model, size_px=side, batch_size=arguments.batch_size, schedule="constant")
    model = build_model(settings.model, NUM_FINDINGS, 127, 70, size_px=side)
    trainer = FedTrainer(model, settings, plan, torch.ones(NUM_FINDINGS), ranks)
    number = arguments.batch_size
    pixels = torch.randint(256, (number, side, side), dtype=torch.uint8)
    labels = torch.randint(2, (number, NUM_FINDINGS)).float()
    batch = Batch(np.arange(number).astype(str), pixels, labels, torch.empty(number, 0))
    trainer.batches = [batch] * plan.steps
    return trainer


def seconds_per_step(trainer: Trainer, epoch: int) -> float:
    """Mean over the steps after the first."""
    ends = [time.perf_counter() for _ in trainer.train_epoch(epoch)]
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def show(measured: dict[tuple[str, int], dict], arguments: argparse.Namespace) -> None:
    names = ("images/s exchanging", "side by side to alone", "exchanging to side by side", "exchanging to alone")
    caption = "medians of ratios of seconds per step: 1.10 is 10% more"
    table = Table("ranks", "ms of a step alone", *names, caption=caption)
    for (launcher, ranks), result in measured.items():
        alone, beside, together = (np.array(result["seconds"][kind]) for kind in (ALONE, BESIDE, TOGETHER))
        ratios = [f"{np.median(ratio):.3f}" for ratio in (beside / alone, together / beside, together / alone)]
        speed = ranks * arguments.batch_size / np.median(together)
        table.add_row(f"{ranks}, {launcher}", f"{1000 * np.median(alone):.0f}", f"{speed:.0f}", *ratios)
    Console().print(table)


def exchange_s(nodes: np.ndarray, num_bytes: int, gbit_per_s: float, latency_us: float) -> np.ndarray:
    """Seconds of a ring all-reduce of num_bytes over as many nodes (Patarasuk and Yuan, 2009); 0 for one node."""
    return 2 * (nodes - 1) / nodes * num_bytes * 8 / (gbit_per_s * 1e9) + 2 * (nodes - 1) * latency_us * 1e-6


def draw(measured: dict[tuple[str, int], dict], arguments: argparse.Namespace) -> None:
    """Measured points filled and black-edged, modelled ones open and on dashed lines."""
    first = measured["horovodrun", 2]
    batch = arguments.batch_size
    alone, beside = (statistics.median(first["seconds"][kind]) for kind in (ALONE, BESIDE))
    figure, axes = plt.subplots(figsize=(8, 6.2), layout="constrained")
    axes.plot([1], [batch / alone], "ks", label="measured: one process")
    for launcher, colour, marker in (("horovodrun", "#0072B2", "o"), ("torchrun", "#D55E00", "^")):
        points = {n: r for (name, n), r in measured.items() if name == launcher}
        speeds = [n * batch / statistics.median(r["seconds"][TOGETHER]) for n, r in points.items()]
        axes.plot(list(points), speeds, marker, color=colour, label=f"measured: ranks on this machine, {launcher}")
    nodes = np.geomspace(1, max(NODES), 200)
    axes.plot(nodes, nodes * batch / beside, color="0.7", label="no exchange at all")
    for gbit_per_s, colour in zip(arguments.gbit_per_s, ("#009E73", "#CC79A7", "#E69F00", "#56B4E9"), strict=False):
        part = (first["bytes"], gbit_per_s, arguments.latency_us)
        axes.plot(nodes, nodes * batch / (beside + exchange_s(nodes, *part)), "--", color=colour, linewidth=1)
        chosen = np.array(NODES)
        speeds = chosen * batch / (beside + exchange_s(chosen, *part))
        label = f"MODELLED, not measured: nodes at {gbit_per_s:g} Gbit/s"
        axes.plot(chosen, speeds, "D", color=colour, markerfacecolor="white", label=label)
        for node, speed in zip(chosen, speeds, strict=True):
            efficiency = speed / (node * batch / beside)
            print(f"modelled: {node} nodes at {gbit_per_s:g} Gbit/s: {speed:,.0f} images/s, {efficiency:.1%} of ideal")
    title = f"{arguments.model}, {arguments.size_px} pixels, {batch} images per rank and step, one core per rank"
    axes.set(xscale="log", yscale="log", xlabel="ranks (measured) or nodes (modelled)", ylabel="images/s", title=title)
    axes.set_xticks([1, 2, 4, *NODES], [1, 2, 4, *NODES])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    caption = (
        f"Four ranks share {len(os.sched_getaffinity(0))} cores here. Model: t(n) = {1000 * beside:.0f} ms (two ranks "
        f"side by side) + 2(n-1)/n * {first['bytes'] / 1e6:.1f} MB / bandwidth + 2(n-1) * {arguments.latency_us:g} us\n"
        "(ring all-reduce, Patarasuk and Yuan 2009). Assumes: each node is one such rank, nothing overlaps with the\n"
        "backward pass, one message per step, no stragglers, an idle network, and reading that keeps up."
    )
    print(caption)
    figure.supxlabel(caption, fontsize=7.5, ha="left", x=0.02)
    with atomic_path(arguments.figure) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    run_command(main)
