"""Does a setting of the training help? Trains with different values and equal seeds, on the CPU, and compares.

    python -m jobs.benchmarks.training.variants --workspace W box_weight=0 box_weight=2     with and without boxes
    python -m jobs.benchmarks.training.variants --seeds 3 weight_decay=0 weight_decay=0.1,learning_rate=0.002

Each argument is a variant: settings of the section `training`, joined by commas, in place of those of conf/demo.yaml.
All variants of a seed start from the same weights, where they have the same network, and are trained in turns, step
by step. It prints what the weights after the last epoch reach on the test split: the mean AUROC, and for findings with
boxes how often the map's largest cell lies in a box (pointing game) and the overlap of map and boxes (mean IoU). Then
it prints the differences from the first variant with their 95% intervals over patients, which do not cover the chance
of the training itself: the standard error over the seeds shows that. The time of a step is the main thread's CPU
time, without reading, which other threads do. It includes all computing only with --threads 1.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Column, Table

from conf.arguments import load_settings
from conf.errors import InputError, run_command
from conf.settings import Training
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from inference.candidate.measuring.localisation import overlaps_of
from jobs.benchmarks.training.fed import alone
from training.loop.loss import loss_weights
from training.loop.trainer import EVALUATION_BATCH_SIZE, Trainer
from training.measures.intervals import bootstrap_differences, bootstrap_means
from training.measures.metrics import auroc_per_finding, mean_over_findings
from training.measures.predictions import Predictions
from training.network.map_grid import measure_map_grid
from training.network.models import XrayClassifier
from training.ranks.collectives import Collectives
from training.ranks.cores import read_cores
from training.ranks.memory import keep_freed_memory
from training.reading.batches import read_batches
from training.reading.plan import Plan, Split
from training.reading.readers import open_split
from training.start.prepare import grid_of, places_read, untrained

PLACES = ("pointing game", "mean IoU")


@dataclass(frozen=True)
class Tested:
    """One training of a variant, measured on the test split."""

    predictions: Predictions
    places: np.ndarray
    """(pairs, 2): whether the map's peak is in a box, 0 or 1, and the IoU, of each pair of an image and a finding with
    boxes, in the table's order; (0, 2) without boxes"""
    step_ms: float
    """median of the main thread's CPU time in a step: with one thread, all that is computed, and no reading"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+", help="settings of the section `training`, such as box_weight=2,epochs=5")
    parser.add_argument("--workspace", default="runs/demo", help="workspace of a finished ETL (default runs/demo)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each variant (default 1)")
    parser.add_argument("--first_seed", type=int, default=0, help="the smallest of the seeds (default 0)")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0, the default: one per physical core")
    arguments = parser.parse_args()
    variants = {words: settings_of(words) for words in arguments.variants}
    keep_freed_memory()
    torch.set_num_threads(arguments.threads or len(read_cores(os.sched_getaffinity(0))))
    table, ranks = TableVersion.of(Workspace.at(arguments.workspace)), Collectives(alone("cpu"))
    tested: dict[str, list[Tested]] = {words: [] for words in variants}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        seeded = {words: replace(training, seed=seed) for words, training in variants.items()}
        for words, one in train_variants(table, seeded, ranks).items():
            tested[words].append(one)
    show(tested, table)


def settings_of(words: str) -> Training:
    """The demo's settings of the training, in fp32, with those of a variant."""
    training = load_settings(
        "", [f"--training.{word.strip()}" for word in ("precision=fp32", *words.split(","))]
    ).training
    if training.weights or training.head_epochs or training.patience or training.schedule == "plateau":
        raise InputError(
            f"{words}: starting weights, a first stage, early stopping and the schedule plateau are not compared here: "
            "use python jobs/sweep.py"
        )
    return training


def train_variants(table: TableVersion, variants: dict[str, Training], ranks: Collectives) -> dict[str, Tested]:
    """Trains the variants in turns, step by step, and measures them; variant -> what it reached."""
    trainers = {}
    for name, training in variants.items():
        places = places_read(training, table.card)
        train = open_split(table, "train", training.size_px, training.tabular, **places)
        plan = Plan.of(train, training.batch_size, num_ranks=1)
        model = untrained(table.card, training)
        grid = grid_of(model, training) if any(places.values()) else None
        trainers[name] = Trainer(model, training, plan, loss_weights(table.card, training), ranks, grid=grid)
    cpu_s: dict[str, list[float]] = {name: [] for name in trainers}
    for epoch in range(max(training.epochs for training in variants.values())):
        steps = {name: one.train_epoch(epoch) for name, one in trainers.items() if epoch < one.settings.epochs}
        # One step of each in turn, so that what slows the machine slows all.
        running = list(steps)
        while running:
            for name in list(running):
                before = time.thread_time()
                if next(steps[name], None) is None:
                    running.remove(name)
                else:
                    cpu_s[name].append(time.thread_time() - before)
        for name in steps:
            loss = np.mean(trainers[name].result.losses)
            print(f"seed {trainers[name].settings.seed}, {name}, epoch {epoch + 1}: loss {loss:.3f}", flush=True)
    tested = {}
    for name, trainer in trainers.items():
        test = open_split(table, "test", trainer.settings.size_px, trainer.settings.tabular, has_boxes=True)
        step_ms = 1000 * float(np.median(cpu_s[name]))
        tested[name] = Tested(trainer.predict(test), measure_places(trainer.model, test), step_ms)
    return tested


def measure_places(model: XrayClassifier, split: Split) -> np.ndarray:
    """Tested.places of a split that is read with its boxes."""
    grid, pairs = measure_map_grid(model.eval(), split.size_px), []
    for batch in read_batches(split, EVALUATION_BATCH_SIZE):
        chosen = np.flatnonzero([len(boxes) > 0 for boxes in batch.boxes])
        if not len(chosen):
            continue
        attributes = (batch.attributes[chosen],) if split.has_attributes else ()
        with torch.inference_mode():
            maps = model.features_and_maps(batch.pixels[chosen], *attributes)[1].numpy()
        for of_film, boxes in zip(maps, batch.boxes[chosen], strict=True):
            pairs += [(overlap.hit, overlap.iou) for overlap in overlaps_of(of_film, boxes, split.size_px, grid)]
    return np.array(pairs, float).reshape(-1, len(PLACES))


def show(tested: dict[str, list[Tested]], table: TableVersion) -> None:
    rows = table.rows("test").set_index("image_id")
    ids = next(iter(tested.values()))[0].predictions.image_ids
    rows = rows.loc[ids]
    pairs = [patient for patient, boxes in zip(rows.patient_id, rows.boxes, strict=True) for _ in set(boxes[::5])]
    shown = Table(Column("variant", overflow="fold"), "CPU ms of a step", "mean AUROC", *PLACES)
    for name, every in tested.items():
        means = [np.median([one.step_ms for one in every]), np.mean([auroc_of(one) for one in every])]
        places = np.mean([one.places.mean(axis=0) for one in every], axis=0) if pairs else [np.nan] * len(PLACES)
        shown.add_row(name, f"{means[0]:.0f}", f"{means[1]:.4f}", *(f"{value:.3f}" for value in places))
    boxed = f"{len(pairs)} pairs of an image and a finding with boxes"
    shown.caption = (
        f"test split, {len(rows)} images, {rows.patient_id.nunique()} patients, {boxed}; {table.card.title}; "
        f"means over {len(every)} seeds"
    )
    Console().print(shown)
    first, *others = tested
    if others:
        Console().print(differences(tested[first], {name: tested[name] for name in others}, rows, pairs, first))


def differences(
    before: list[Tested], others: dict[str, list[Tested]], rows: pd.DataFrame, pairs: list[str], first: str
) -> Table:
    shown = Table(Column(f"minus {first}", overflow="fold"), "mean AUROC", *PLACES)
    options = {"num_resamples": 1000, "seed": 0}
    for name, after in others.items():
        # The seeds side by side, like more findings: the mean over all columns is the mean over the seeds.
        labels, old, new = (
            np.hstack(parts)
            for parts in (
                [one.predictions.labels for one in before],
                [one.predictions.logits for one in before],
                [one.predictions.logits for one in after],
            )
        )
        auroc = bootstrap_differences(labels, old, new, rows.patient_id.to_numpy(), **options).auroc
        seeds = [auroc_of(one) - auroc_of(other) for one, other in zip(after, before, strict=True)]
        cells = [described(auroc.values[-1], auroc.low[-1], auroc.high[-1], seeds)]
        if pairs:
            changes = np.mean([one.places - other.places for one, other in zip(after, before, strict=True)], axis=0)
            each = [(one.places - other.places).mean(axis=0) for one, other in zip(after, before, strict=True)]
            ends = zip(*bootstrap_means(changes, pairs, **options), np.transpose(each), strict=True)
            cells += [described(*values) for values in ends]
        shown.add_row(name, *cells)
    shown.caption = "difference, 95% interval over patients; standard error over the seeds"
    return shown


def auroc_of(one: Tested) -> float:
    return mean_over_findings(auroc_per_finding(one.predictions.labels, one.predictions.logits))


def described(value: float, low: float, high: float, seeds: np.ndarray) -> str:
    error = f"; {np.std(seeds, ddof=1) / np.sqrt(len(seeds)):.3f}" if len(seeds) > 1 else ""
    return f"{value:+.3f}, {low:+.3f} to {high:+.3f}{error}"


if __name__ == "__main__":
    run_command(main)
