"""Trains on the shards of the last ETL; the same command on one process or many.

    python training/train.py                                     one process
    horovodrun -np 8 python training/train.py                    8 ranks, gradients by Horovod
    torchrun --nproc_per_node 8 training/train.py                8 ranks, gradients by torch.distributed
    python training/train.py --training.epochs 1 --training.model simple_cnn        a quick try
    python training/train.py --training.resume true              goes on where one was killed or stopped

Reads <workspace>/shards at the version that card.json names; writes checkpoints/best.pt (best validation),
checkpoints/last.pt (while it runs), figures/, and one MLflow run in mlflow.db. SIGTERM saves the state and ends with
exit code 143.
"""

import ctypes
import os
import resource
import socket
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from conf.errors import InputError, run_command
from conf.settings import Settings, load_settings
from conf.workspace import Workspace
from etl.schema import SPLITS, Card, image_column
from etl.table import read_card
from training.collectives import Collectives, is_lost_rank
from training.interruption import EXIT_SIGTERM, Interruption
from training.loop import Trainer
from training.loss import positive_weights
from training.models import XrayClassifier, build_model, check_step
from training.plan import Plan, Split
from training.readers import open_split
from training.resume import load_state
from training.topology import Topology, launched_rank
from training.weights import load_weights

# mallopt's, of malloc.h: free bytes from which memory is given back, bytes from which an array has pages of its own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# A launcher under load takes seconds to notice that rank 0 has ended.
RANK_0_SPEAKS_FIRST_S = 10


def main() -> None:
    try:
        run_rank()
    except RuntimeError as error:
        if not is_lost_rank(error):
            raise
        # Its own launcher says which one, and ends this one.
        raise InputError(
            f"rank {launched_rank()} on {socket.gethostname()} has lost another rank: see the messages of the one that "
            "ended first; --training.resume true goes on from the last saved state"
        ) from error
    except InputError as error:
        rank = launched_rank()
        if rank == 0:
            raise
        # Mostly all ranks find the same fault: rank 0 says it, and the launcher ends the others while they wait here.
        # Where rank 0 is slower or finds nothing, this message is all that is seen.
        time.sleep(RANK_0_SPEAKS_FIRST_S)
        raise InputError(f"rank {rank} on {socket.gethostname()}: {error}") from error


def keep_freed_memory() -> None:
    """Has glibc keep what is freed, for the next step needs the same again.

    Otherwise it gives pages back to the system and has them filled with zeros in each step: some tenth of the time of a
    training on CPUs. Another C library is left as it is.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)


def run_rank() -> None:
    """The whole training, as one of the ranks."""
    keep_freed_memory()
    settings = load_settings("Trains on the shards of the last ETL.")
    topology = Topology.detect(settings.training.device)
    torch.set_num_threads(topology.cpu_threads(settings.training.threads))
    card, plan, val_split, test_split, model = prepare(settings, topology)
    # Rank 0 is the one that writes.
    with Workspace.at(settings.workspace).exclusive() if topology.is_main else nullcontext():
        ranks = Collectives(topology)
        check_same_table(ranks, card, plan.split, val_split)
        if settings.training.weights and not settings.training.resume and topology.is_main:
            # The other ranks get rank 0's weights.
            load_starting_weights(settings, card, model)
        finished = train(settings, ranks, card, plan, val_split, test_split, model)
        # Whoever ends first has the launcher end the others: rank 0 may still be writing.
        ranks.gather(None)
        ranks.close()
    if not finished:
        # At once: horovodrun kills what is left 5 s after its SIGTERM, and an interpreter takes its time to end.
        sys.stdout.flush()
        os._exit(EXIT_SIGTERM)


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
    )
    if training.accumulation > plan.smallest_step:
        raise InputError(
            f"training.accumulation is {training.accumulation}, the smallest step of a rank has {plan.smallest_step} "
            "images: lower it, or raise training.batch_size"
        )
    smallest_pass = plan.smallest_step // training.accumulation
    check_step(model, training.model, training.size_px, smallest_pass)
    return card, plan, val_split, test_split, model


def load_starting_weights(settings: Settings, card: Card, model: XrayClassifier) -> None:
    """Puts training.weights into the model and says what stays random."""

    def find(address: str) -> Path:
        # Here, because mlflow takes seconds to import.
        from training.tracking import fetch_checkpoint

        return fetch_checkpoint(Workspace.at(settings.workspace), address)

    training = settings.training
    started = load_weights(model, training.weights, training.model, findings=card.findings, resolve=find)
    print(f"Starting weights: {started.describe()}", flush=True)


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


def train(
    settings: Settings,
    ranks: Collectives,
    card: Card,
    plan: Plan,
    val_split: Split,
    test_split: Split,
    model: XrayClassifier,
) -> bool:
    """All epochs; rank 0 also keeps the record. Returns False where SIGTERM stopped it, with its state saved."""
    training, topology = settings.training, ranks.topology
    trainer = Trainer(model, training, plan, positive_weights(card, training.pos_weight_max), ranks)
    interrupted = load_state(settings, ranks, card, plan) if training.resume else None
    epoch, step = 0, 0
    if interrupted:
        trainer.load(interrupted)
        epoch, step = interrupted.epoch, interrupted.step
    with ExitStack() as stack:
        record = None
        if topology.is_main:
            # Here, so that no other rank pays for its imports.
            from training.record import Record

            record = stack.enter_context(Record(settings, card, trainer, interrupted))
        interruption = Interruption(ranks, training.checkpoint_steps)
        bar = stack.enter_context(progress_bar(plan, training.epochs, epoch, step, topology.is_main))
        while epoch < training.epochs and not ranks.broadcast(record is not None and record.is_enough):
            for images in trainer.train_epoch(epoch, step):
                step += 1
                bar.update(images)
                wish = interruption.after_step()
                if wish:
                    state = trainer.state()
                    if record:
                        record.save(epoch, step, state)
                if wish == "stop":
                    bar.close()
                    if record:
                        record.say_stopped(epoch, step)
                    return False
            predictions = trainer.predict(val_split)
            trainer.after_validation(predictions)
            line = record.add_epoch(trainer.result, predictions) if record else ""
            epoch, step = epoch + 1, 0
            state = trainer.state()
            if record:
                bar.write(line)
                record.save(epoch, step, state)
        bar.close()
        # What is saved is whole: SIGTERM may end the rest, and a resumed training does it again.
        if interruption.close():
            if record:
                record.say_stopped(epoch, step)
            return False
        trainer.model.load_state_dict(ranks.broadcast(record.best_weights() if record else None))
        val, test = trainer.predict(val_split), trainer.predict(test_split)
        peaks_mb = ranks.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        if record:
            record.finish(peaks_mb, val_split, val, test)
    return True


def progress_bar(plan: Plan, epochs: int, epoch: int, step: int, shown: bool) -> tqdm:
    """Over the images of all epochs, from where the training is."""
    done = plan.split.rows * epoch + sum(plan.global_sizes[:step])
    total = plan.split.rows * epochs
    return tqdm(total=total, initial=done, unit="image", desc="training", disable=not shown)


if __name__ == "__main__":
    run_command(main)
