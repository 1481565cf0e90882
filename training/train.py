"""Trains on the shards of the last ETL; the same command on one process or many.

    python training/train.py                                     one process
    horovodrun -np 8 python training/train.py                    8 ranks, gradients by Horovod
    torchrun --nproc_per_node 8 training/train.py                8 ranks, gradients by torch.distributed
    python training/train.py --training.epochs 1 --training.model simple_cnn        a quick try

Reads <workspace>/shards at the version that card.json names; writes checkpoints/best.pt (best mean validation AUROC),
figures/, and one MLflow run in mlflow.db.
"""

import resource
import socket
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace

import torch
from tqdm import tqdm

from conf.errors import InputError, run_command
from conf.settings import Settings, load_settings
from conf.workspace import Workspace
from etl.schema import Card, image_column
from etl.table import read_card
from training.loop import Trainer
from training.loss import positive_weights
from training.models import build_model, check_step
from training.readers import Split, check_world_size, open_split
from training.topology import Collectives, Topology, launched_rank

# A launcher under load takes seconds to notice that rank 0 has ended.
RANK_0_SPEAKS_FIRST_S = 10


def main() -> None:
    try:
        run_rank()
    except InputError as error:
        rank = launched_rank()
        if rank == 0:
            raise
        # Mostly all ranks find the same fault: rank 0 says it, and the launcher ends the others while they wait here.
        # Where rank 0 is slower or finds nothing, this message is all that is seen.
        time.sleep(RANK_0_SPEAKS_FIRST_S)
        raise InputError(f"rank {rank} on {socket.gethostname()}: {error}") from error


def run_rank() -> None:
    """The whole training, as one of the ranks."""
    settings = load_settings("Trains on the shards of the last ETL.")
    topology = Topology.detect(settings.training.device)
    torch.set_num_threads(topology.cpu_threads(settings.training.threads))
    card, train_split, val_split, model = prepare(settings, topology)
    # Rank 0 is the one that writes.
    with Workspace.at(settings.workspace).exclusive() if topology.is_main else nullcontext():
        ranks = Collectives(topology)
        check_same_table(ranks, card, train_split, val_split)
        train(settings, ranks, card, train_split, val_split, model)
        ranks.close()


def prepare(settings: Settings, topology: Topology):
    """Checks all inputs and gives back card, training split, validation split and the fresh model."""
    workspace, training = Workspace.at(settings.workspace), settings.training
    card = Card.read(workspace.card)
    shards, _ = workspace.tables(card.table)
    if training.delta_version >= 0:
        card = replace(card_of_version(shards, training.delta_version), table=card.table)
    train_split, val_split = (open_split(shards, card, name, training.size_px) for name in ("train", "val"))
    check_world_size(train_split, topology.world_size, training.batch_size)
    check_measurable(card)
    torch.manual_seed(training.seed)
    column = image_column(training.size_px)
    model = build_model(training.model, len(card.findings), card.pixel_mean[column], card.pixel_std[column])
    smallest_step = train_split.smallest_step(topology.world_size, training.batch_size)
    check_step(model, training.model, training.size_px, smallest_step)
    return card, train_split, val_split, model


def card_of_version(shards: str, version: int) -> Card:
    """The card of an older version. Raises InputError where it is not there or too old for this program."""
    card = read_card(shards, version)
    if card is None:
        raise InputError(f"version {version} of {shards} was written by an older program: run the ETL again")
    return card


def check_measurable(card: Card) -> None:
    """Raises InputError when no finding has an AUROC on the validation split, by which the best epoch is chosen."""
    known, positives = card.known["val"], card.positives["val"]
    if not any(0 < positives[finding] < known[finding] for finding in card.findings):
        raise InputError(
            f"no finding has both positives and negatives among the {card.images['val']} validation images, so no "
            "epoch can be chosen by AUROC: raise etl.val_fraction and run the ETL again"
        )


def check_same_table(ranks: Collectives, card: Card, train_split: Split, val_split: Split) -> None:
    """Raises InputError, on every rank, where two ranks read different tables.

    Their plans would have different numbers of steps, and the longer one would wait for its peers for ever.
    """
    tables = ranks.gather((card.delta_version, train_split.row_groups, val_split.row_groups))

    def described(rank: int) -> str:
        version, train, val = tables[rank]
        return (
            f"rank {rank} reads version {version} (train: {sum(train)} images in {len(train)} row groups, "
            f"val: {sum(val)} in {len(val)})"
        )

    for rank, table in enumerate(tables):
        if table != tables[0]:
            raise InputError(f"{described(rank)}, {described(0)}: give the ranks of all hosts the same workspace")


def train(settings: Settings, ranks: Collectives, card: Card, train_split, val_split, model) -> None:
    """All epochs; rank 0 also keeps the record."""
    training, topology = settings.training, ranks.topology
    trainer = Trainer(model, training, train_split, positive_weights(card, training.pos_weight_max), ranks)
    images = train_split.rows * training.epochs
    with ExitStack() as stack:
        record = None
        if topology.is_main:
            # Here, so that no other rank pays for its imports.
            from training.record import Record

            record = stack.enter_context(Record(settings, card, model, trainer.pos_weight.cpu(), topology))
        bar = stack.enter_context(tqdm(total=images, unit="image", desc="training", disable=not topology.is_main))
        for epoch in range(training.epochs):
            result = trainer.train_epoch(epoch, bar)
            predictions = trainer.predict(val_split)
            if record:
                bar.write(record.add_epoch(result, predictions))
        peaks_mb = ranks.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        bar.close()
        if record:
            record.finish(peaks_mb, val_split)


if __name__ == "__main__":
    run_command(main)
