"""What a training needs before its first step, checked on every rank before any of them waits for another."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from conf.errors import InputError
from conf.settings import Settings
from conf.workspace import Workspace
from etl.contract.schema import SPLITS, Card, image_column
from etl.contract.table import read_card
from training.network.models import XrayClassifier, build_model, check_step
from training.network.weights import load_weights
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology
from training.reading.leaks import seen_in_test
from training.reading.plan import Plan, Split
from training.reading.readers import open_split


def prepare(settings: Settings, topology: Topology):
    """Checks all inputs; card, plan of the training split, validation and test split, and the model to start from."""
    workspace, training = Workspace.at(settings.workspace), settings.training
    card = Card.read(workspace.card)
    shards, _ = workspace.tables(card.table)
    if training.delta_version >= 0:
        card = replace(card_of_version(shards, training.delta_version), table=card.table)
    train_split, val_split, test_split = (
        open_split(shards, card, name, training.size_px, training.tabular) for name in SPLITS
    )
    plan = Plan.of(train_split, training.batch_size, topology.world_size, training.streams)
    check_measurable(card)
    known, positives = card.known["train"], card.positives["train"]
    alike = [finding for finding in card.findings if positives[finding] in (0, known[finding])]
    if alike and topology.is_main:
        print(
            f"Nothing can be learned of {', '.join(alike)}: the training split has no two kinds of labels", flush=True
        )
    torch.manual_seed(training.seed)
    column = image_column(training.size_px)
    model = build_model(
        training.model,
        len(card.findings),
        card.pixel_mean[column],
        card.pixel_std[column],
        size_px=training.size_px,
        channels=card.channels,
        tabular=training.tabular,
        exclusive=training.exclusive,
    )
    if training.accumulation > plan.smallest_step:
        raise InputError(
            f"training.accumulation is {training.accumulation}, the smallest step of a rank has {plan.smallest_step} "
            "images: lower it, or raise training.batch_size"
        )
    smallest_pass = plan.smallest_step // training.accumulation
    check_step(model, training.model, training.size_px, smallest_pass)
    return card, plan, val_split, test_split, model


def load_starting_weights(settings: Settings, card: Card, model: XrayClassifier) -> list[dict]:
    """Puts training.weights into the model and says what stays random; returns StartingWeights.ancestors."""

    def find(address: str) -> Path:
        # Here, because mlflow takes seconds to import.
        from training.record.store import fetch_checkpoint

        return fetch_checkpoint(Workspace.at(settings.workspace, settings.tracking_server), address)

    training = settings.training
    started = load_weights(model, training.weights, training.model, findings=card.findings, resolve=find)
    print(f"Starting weights: {started.describe()}", flush=True)
    shards = Workspace.at(settings.workspace).tables(card.table)[0]
    try:
        seen = seen_in_test(shards, card, started.ancestors)
    except InputError as error:
        print(f"Nobody can tell whether {training.weights} has seen patients of the test split: {error}", flush=True)
        return started.ancestors
    if seen:
        raise InputError(
            f"the weights of {training.weights} were trained on {len(seen)} patients of today's test split, such as "
            f"{min(seen)}, who were in other splits then: the test would flatter the model; begin with other weights, "
            "or bring the split back (etl.split, etl.seed, the fractions)"
        )
    return started.ancestors


def card_of_version(shards: str, version: int) -> Card:
    """The card of an older version. Raises InputError where it is not there or too old for this program."""
    card = read_card(shards, version)
    if card is None:
        raise InputError(f"version {version} of {shards} was written by an older program: run the ETL again")
    return card


def check_measurable(card: Card) -> None:
    """Raises InputError when no finding has an AUROC on the validation split."""
    known, positives = card.known["val"], card.positives["val"]
    if not any(0 < positives[finding] < known[finding] for finding in card.findings):
        raise InputError(
            f"no finding has both positives and negatives among the {card.images['val']} validation images, so no "
            "epoch has an AUROC: raise etl.val_fraction and run the ETL again"
        )


def check_same_training(ranks: Collectives, settings: Settings, card: Card, splits: Sequence[Split]) -> None:
    """Raises InputError, on every rank, where two ranks read different tables or have different settings.

    They would take different numbers of steps, and the longer one would wait for its peers for ever.
    """
    own = {key: value for key, value in asdict(settings.training).items() if key != "threads"}
    table = (card.delta_table_id, card.delta_version, [split.row_groups for split in splits])
    tables, chosen = zip(*ranks.gather((table, own)), strict=True)

    def described(rank: int) -> str:
        table_id, version, row_groups = tables[rank]
        counts = (
            f"{split.name}: {sum(rows)} images in {len(rows)} row groups"
            for split, rows in zip(splits, row_groups, strict=True)
        )
        return f"rank {rank} reads version {version} of table {table_id} ({', '.join(counts)})"

    for rank in range(len(tables)):
        if tables[rank] != tables[0]:
            raise InputError(f"{described(rank)}, {described(0)}: give the ranks of all hosts the same workspace")
        for key, value in chosen[rank].items():
            if value != chosen[0][key]:
                raise InputError(
                    f"rank {rank} has training.{key} {value!r}, rank 0 {chosen[0][key]!r}: start all with the same "
                    "settings"
                )
