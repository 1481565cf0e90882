"""Does bf16 harm the AUROC, and what does it save? Trains in fp32 and in bf16 with equal seeds, on the CPU.

    python -m jobs.benchmarks.training.precision                                   the demo's network and table
    python -m jobs.benchmarks.training.precision --seeds 3                         the same with three seeds
    python -m jobs.benchmarks.training.precision --model densenet121 --size_px 224 --steps 5 --seeds 0     steps alone

First it prints how long steps of random images take, the two precisions in turns. Then it trains both as conf/demo.yaml
says, on the workspace of a finished ETL, their epochs in turns, and prints the AUROC on the test split after the last
epoch with the paired difference and its 95% interval over patients. The interval does not cover the chance of the
training itself, which the standard error over the seeds shows; the last row compares two seeds of fp32.
"""

import argparse
import os
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from conf.arguments import load_settings
from conf.errors import run_command
from conf.settings import Training
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from jobs.benchmarks.training.fed import alone
from jobs.benchmarks.training.ranks import build_trainer, seconds_per_step
from jobs.benchmarks.training.variants import train_variants
from training.measures.intervals import bootstrap_differences
from training.measures.metrics import auroc_per_finding, mean_over_findings
from training.measures.predictions import Predictions
from training.ranks.collectives import Collectives
from training.ranks.cores import read_cores
from training.ranks.memory import keep_freed_memory
from training.start.precision import multiplies_bf16_fast

PRECISIONS = ("fp32", "bf16")


def main() -> None:
    demo = load_settings("", []).training
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs/demo", help="workspace of a finished ETL (default runs/demo)")
    parser.add_argument("--model", default=demo.model, help=f"model, as in training.model (default {demo.model})")
    parser.add_argument("--size_px", type=int, default=demo.size_px, help=f"side of the images ({demo.size_px})")
    parser.add_argument("--batch_size", type=int, default=demo.batch_size, help=f"images per step ({demo.batch_size})")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0, the default: one per physical core")
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn (default 20)")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each precision (default 5)")
    parser.add_argument("--epochs", type=int, default=demo.epochs, help=f"epochs (default {demo.epochs})")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each precision (default 1); 0: steps alone")
    parser.add_argument("--first_seed", type=int, default=0, help="the smallest of the seeds (default 0)")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads or len(read_cores(os.sched_getaffinity(0))))
    ranks = Collectives(alone("cpu"))
    show_steps(measure_steps(arguments, ranks), arguments)
    if arguments.seeds:
        table = TableVersion.of(Workspace.at(arguments.workspace))
        own = {"model": arguments.model, "size_px": arguments.size_px, "batch_size": arguments.batch_size}
        training = replace(demo, **own, epochs=arguments.epochs)
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        show_aurocs({seed: train_both(table, replace(training, seed=seed), ranks) for seed in seeds}, table)


def measure_steps(arguments: argparse.Namespace, ranks: Collectives) -> dict[str, list[float]]:
    """Returns precision -> seconds per step of each turn; a first turn of each is not counted."""
    trainers = {name: build_trainer(arguments, ranks, precision=name) for name in PRECISIONS}
    seconds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for repetition in range(arguments.repetitions + 1):
        for name, trainer in trainers.items():
            own = seconds_per_step(trainer, repetition)
            if repetition:
                seconds[name].append(own)
    return seconds


def train_both(table: TableVersion, training: Training, ranks: Collectives) -> dict[str, Predictions]:
    """Trains from the same weights in both precisions; returns precision -> predictions of the test split."""
    variants = {name: replace(training, precision=name) for name in PRECISIONS}
    return {name: one.predictions for name, one in train_variants(table, variants, ranks).items()}


def show_steps(seconds: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    shown = Table("network", "ms of a step, fp32", "bf16 to fp32, median", "smallest", "largest")
    full, reduced = (np.array(seconds[name]) for name in PRECISIONS)
    ratios = reduced / full
    values = (f"{1000 * np.median(full):.0f}", *(f"{f(ratios):.2f}" for f in (np.median, np.min, np.max)))
    shown.add_row(f"{arguments.model}, {arguments.size_px} px, batches of {arguments.batch_size}", *values)
    names = ("amx_bf16", "avx512_bf16")
    found = [name for name in names if torch.cpu.get_capabilities().get(name)]
    reason = multiplies_bf16_fast(torch.device("cpu"))[1]
    shown.caption = f"{reason}; bfloat16 by {', '.join(found) or 'conversion'}; threads: {torch.get_num_threads()}"
    Console().print(shown)


def show_aurocs(tested: dict[int, dict[str, Predictions]], table: TableVersion) -> None:
    patients = table.rows("test").set_index("image_id")["patient_id"]
    shown = Table("seed", "fp32", "bf16", "difference", "95% interval over patients")

    def add(name: str, before: list[Predictions], after: list[Predictions]) -> float:
        # The seeds side by side, like more findings: the mean over all columns is the mean over the seeds.
        labels, old, new = (
            np.hstack(parts)
            for parts in (
                [one.labels for one in before],
                [one.logits for one in before],
                [one.logits for one in after],
            )
        )
        means = [mean_over_findings(auroc_per_finding(labels, logits)) for logits in (old, new)]
        owners = patients.loc[before[0].image_ids].to_numpy()
        auroc = bootstrap_differences(labels, old, new, owners, num_resamples=1000, seed=0).auroc
        ends = f"{auroc.low[-1]:+.4f} to {auroc.high[-1]:+.4f}"
        shown.add_row(name, *(f"{mean:.4f}" for mean in means), f"{auroc.values[-1]:+.4f}", ends)
        return auroc.values[-1]

    every = {name: [predictions[name] for predictions in tested.values()] for name in PRECISIONS}
    ids = every["fp32"][0].image_ids
    assert all((one.image_ids == ids).all() for of_precision in every.values() for one in of_precision)
    differences = [
        add(str(seed), [full], [reduced]) for seed, full, reduced in zip(tested, *every.values(), strict=True)
    ]
    shown.caption = f"mean AUROC, test split, {len(patients)} images, {patients.nunique()} patients; {table.card.title}"
    if len(tested) > 1:
        add("mean over the seeds", *every.values())
        add("second in place of first seed, fp32", every["fp32"][:1], every["fp32"][1:2])
        error = np.std(differences, ddof=1) / np.sqrt(len(differences))
        shown.caption += f"; standard error of the mean difference over the seeds {error:.4f}"
    Console().print(shown)


if __name__ == "__main__":
    run_command(main)
