"""Finds the table of a training, and checks what it needs before its first step, on every rank."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from conf.arguments import Resume
from conf.errors import InputError
from conf.settings import Settings, Training
from conf.words import counted
from conf.workspace import Workspace
from etl.contract.labels import missing_labels, not_learned
from etl.contract.schema import SPLITS, Card, image_column
from etl.contract.version import TableVersion
from etl.contract.vocabulary import check_vocabulary
from training.loop.task import Task
from training.network.build import build_for, check_step
from training.network.layers import learning_rate_shares
from training.network.map_grid import measure_map_grid
from training.network.models import XrayClassifier
from training.network.weights import load_weights
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology
from training.reading.leaks import seen_in_test
from training.reading.plan import Plan
from training.reading.readers import open_split
from training.start.caching import cached

STORE_ATTEMPTS = "8"
"""attempts of a store's client, with random pauses that double: half a minute to a minute and a half"""


def find_table(settings: Settings, workspace: Workspace, ranks: Collectives) -> TableVersion:
    """The version of the table to train on, which rank 0 finds: no other rank needs the workspace.

    Raises InputError, on every rank, if rank 0 finds none.
    """
    # A store that restarts refuses connections for longer than the client's five attempts, which take nine seconds.
    os.environ.setdefault("AWS_MAX_ATTEMPTS", STORE_ATTEMPTS)
    return ranks.from_rank_0(lambda: TableVersion.of(workspace, settings.training.delta_version, settings.etl.table))


def prepare(settings: Settings, workspace: Workspace, table: TableVersion, topology: Topology) -> Task:
    """Checks all inputs and builds the model to start from. Raises InputError for what cannot be trained."""
    training, card = settings.training, table.card
    if training.tensorboard:
        check_tensorboard()
    # An older release may have written the table.
    check_vocabulary(card.findings, "run the ETL again")
    opened = partial(open_split, table, size_px=training.size_px, has_attributes=training.tabular)
    places = places_read(training, card)
    # Side by side, because each takes half a dozen round trips to a store.
    with ThreadPoolExecutor(len(SPLITS)) as threads:
        splits = list(threads.map(lambda name, extra: opened(name, **extra), SPLITS, [places, {}, {}]))
    train, val, test = cached(splits, training, topology)
    plan = Plan.of(train, training.batch_size, topology.world_size, training.streams)
    if missing := missing_labels(card):
        raise InputError(missing)
    if topology.is_main:
        for reason, findings in not_learned(card).items():
            print(f"Cannot learn {', '.join(findings)}: {reason}", flush=True)
    model = untrained(card, training)
    if training.layer_decay < 1:
        learning_rate_shares(model, training.model, training.layer_decay)
    if training.accumulation > plan.smallest_step:
        raise InputError(
            f"training.accumulation is {training.accumulation}, the smallest step of a rank has {plan.smallest_step} "
            "images: lower it, or raise training.batch_size"
        )
    smallest_pass = plan.smallest_step // training.accumulation
    check_step(model, training.model, training.size_px, smallest_pass)
    grid = grid_of(model, training) if any(places.values()) else None
    return Task(settings, workspace, table, plan, val, test, model, grid)


def untrained(card: Card, training: Training) -> XrayClassifier:
    """The network with random weights from the training's seed. Raises InputError for images of one grey."""
    torch.manual_seed(training.seed)
    column = image_column(training.size_px)
    if not card.pixel_std[column]:
        raise InputError(
            f"every pixel of the train split is {card.pixel_mean[column]:.0f}, so there is nothing to learn: look at "
            "the contact sheet of the dataset card, and run the ETL with etl.quality.constant true"
        )
    pixels = card.pixel_mean[column], card.pixel_std[column], card.channels
    return build_for(training, len(card.findings), *pixels)


def grid_of(model: XrayClassifier, training: Training) -> tuple[float, float]:
    """Where the cells of the model's maps lie, see measure_map_grid; the same on every rank and after a resume.

    model: untrained. Raises InputError if its maps have one cell, which cannot point at a box.
    """
    with torch.inference_mode():
        pixels = model.eval().example_batch(1, training.size_px)[0]
        cells = model.feature_map(pixels).shape[-1]
    if cells < 2:
        raise InputError(
            f"training.box_weight and lung_weight need maps, but {training.model} has maps of a single cell at "
            f"{training.size_px} pixels: choose a larger training.size_px or another training.model, or leave them out"
        )
    grid = measure_map_grid(model, training.size_px)
    model.train()
    return grid


def places_read(training: Training, card: Card) -> dict[str, bool]:
    """What the losses on places need of the training split, as open_split names it.

    Raises InputError if no film of that split has it.
    """
    if training.box_weight:
        check_boxes(card)
    if training.lung_weight:
        check_masks(card)
    return {"has_boxes": training.box_weight > 0, "has_regions": training.lung_weight > 0}


def check_boxes(card: Card) -> None:
    """Raises InputError if no film of the training split has boxes, from which training.box_weight would learn."""
    if card.boxed.get("train"):
        return
    if not card.boxed:
        raise InputError(
            f"the card of {card.title} does not count boxes, because an older release wrote it: run the ETL with "
            "--rebuild, or leave training.box_weight out"
        )
    elsewhere = ", ".join(f"{counted(number, 'film')} of {split}" for split, number in card.boxed.items() if number)
    reason = f"only {elsewhere} have them, and training on those would leak" if elsewhere else "no film has any"
    raise InputError(
        f"training.box_weight needs boxes in the training split of {card.title}, but {reason}: "
        + (
            "split the patients otherwise (--etl.split hashed; the figures are then not comparable with those of the "
            "official split)"
            if elsewhere
            else "add boxes to the source (docs/data.md), or leave training.box_weight out"
        )
    )


def check_masks(card: Card) -> None:
    """Raises InputError if no film of the training split has a mask, from which training.lung_weight would learn."""
    if not card.masks.get("images", {}).get("train"):
        raise InputError(
            f"training.lung_weight needs masks of lungs in the training split of {card.title}, but it has none: name "
            "their folder by --etl.masks (phantoms have them with --phantoms.masks true) and run the ETL again, or "
            "leave training.lung_weight out"
        )


def check_tensorboard() -> None:
    """Raises InputError if the package is missing that writes event files, before a run begins."""
    if find_spec("tensorboard") is None:
        raise InputError(
            "training.tensorboard is true, but the Python module tensorboard is not installed: run `make setup`, or "
            "`pip install tensorboard` where pip installed CheXScale; or leave training.tensorboard out"
        )


def load_starting_weights(task: Task) -> list[dict]:
    """Loads training.weights into the task's model and prints what stays random; returns StartingWeights.ancestors.

    Raises InputError if those weights have seen patients of the test split.
    """

    def find(address: str) -> Path:
        # Imported here, because mlflow takes seconds to import.
        from training.record.store import fetch_checkpoint

        return fetch_checkpoint(task.workspace, address)

    training = task.settings.training
    started = load_weights(task.model, training.weights, training.model, findings=task.card.findings, resolve=find)
    print(f"Starting weights: {started.describe()}", flush=True)
    try:
        seen = seen_in_test(task.table, started.ancestors)
    except InputError as error:
        print(f"Cannot tell whether {training.weights} has seen patients of the test split: {error}", flush=True)
        return started.ancestors
    if seen:
        raise InputError(
            f"the weights of {training.weights} were trained on {counted(len(seen), 'patient')} of today's test split, "
            f"such as {min(seen)}, who were in other splits then, so the test would flatter the model: start from "
            "other weights, or restore the earlier split (etl.split, etl.seed, the fractions)"
        )
    return started.ancestors


def check_same_training(ranks: Collectives, task: Task, resume: Resume) -> None:
    """Raises InputError, on every rank, if two ranks see other files of the table or have different settings.

    They would take different numbers of steps, and the rank with more steps would wait for its peers for ever.
    """
    own = {key: value for key, value in asdict(task.settings.training).items() if key != "threads"}
    own |= {"resume": str(resume)}
    splits = (task.plan.split, task.val, task.test)
    tables, chosen = zip(*ranks.gather(([split.row_groups for split in splits], own)), strict=True)

    def described(rank: int) -> str:
        counts = (
            f"{split.name}: {counted(sum(rows), 'image')} in {counted(len(rows), 'row group')}"
            for split, rows in zip(splits, tables[rank], strict=True)
        )
        return f"rank {rank} finds {', '.join(counts)}"

    for rank in range(len(tables)):
        if tables[rank] != tables[0]:
            raise InputError(
                f"{task.table.shards} is not the same table on all hosts: {described(rank)}; {described(0)}. Keep it "
                "where all hosts see it, in a shared folder or in a store (etl.table)"
            )
        for key, value in chosen[rank].items():
            if value != chosen[0][key]:
                raise InputError(
                    f"rank {rank} has training.{key} {value!r}, rank 0 {chosen[0][key]!r}: start all with the same "
                    "settings"
                )
