"""A whole training as one of its ranks: what must be right before it, its stages, and what rank 0 keeps of it."""

import copy
import os
import resource
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from conf.arguments import Resume
from conf.progress import Progress
from conf.settings import Settings
from conf.workspace import Workspace
from training.loop.loss import loss_weights
from training.loop.shortage import explained, whole_training
from training.loop.stages import Stage, stages_of
from training.loop.task import Task
from training.loop.trainer import Trainer
from training.network.checkpoint import State
from training.ranks.binding import OwnCores
from training.ranks.collectives import Collectives, is_lost_rank
from training.ranks.elastic import is_elastic, run_elastic
from training.ranks.interruption import EXIT_SIGTERM, Interruption
from training.ranks.memory import keep_freed_memory
from training.ranks.said_once import LostRankError
from training.ranks.topology import Topology
from training.reading.plan import Plan, Split
from training.start.caching import check_place
from training.start.precision import settle_precision
from training.start.prepare import check_same_training, find_table, load_starting_weights, prepare
from training.start.resume import look_back

if TYPE_CHECKING:
    from training.record.record import Record


def run(settings: Settings, workspace: Workspace, resume: Resume) -> None:
    """Trains as one of the launcher's ranks, again after each lost rank if the launcher keeps the others alive.

    Raises LostRankError if it does not, and another rank is lost.
    """
    try:
        if is_elastic():
            run_elastic(settings, workspace, resume, run_rank)
        else:
            run_rank(settings, workspace, resume)
    except RuntimeError as error:
        if not is_lost_rank(error):
            raise
        # The launcher says which rank was lost, and ends this one.
        raise LostRankError(
            "another rank is lost: see the messages of the first rank that ended; the same command with --resume "
            f"continues from the last saved state ({error!s:.300})"
        ) from error


def run_rank(settings: Settings, workspace: Workspace, resume: Resume = Resume.NO) -> None:
    """The whole training, as one of the ranks."""
    keep_freed_memory()
    check_place(settings.training)
    topology = Topology.detect(settings.training.device)
    # First, so that all memory comes from the node of these cores.
    with OwnCores(topology, settings.training) as cores:
        # Steps and validations say for themselves what was too large. Only rank 0 writes.
        device = explained(topology.torch_device, *whole_training(settings.training))
        with device, workspace.exclusive() if topology.is_main else nullcontext():
            ranks = Collectives(topology)
            table = find_table(settings, workspace, ranks)
            task = prepare(settings, workspace, table, topology)
            cores.settle(ranks)
            finished = train_and_part(task, ranks, resume)
    if not finished:
        # At once: horovodrun kills the remaining processes 5 s after its SIGTERM, and Python may take longer to end.
        sys.stdout.flush()
        os._exit(EXIT_SIGTERM)


def train_and_part(task: Task, ranks: Collectives, resume: Resume) -> bool:
    """Trains once the ranks agree on what, and leaves them; returns what `train` returns."""
    check_same_training(ranks, task, resume)
    is_over, interrupted = ranks.from_rank_0(lambda: look_back(task, resume))
    task = replace(task, interrupted=interrupted)
    if task.settings.training.weights and not (is_over or interrupted) and ranks.topology.is_main:
        # The other ranks get rank 0's weights.
        task = replace(task, ancestors=load_starting_weights(task))
    finished = is_over or train(task, ranks)
    try:
        # The launcher ends all ranks when the first one ends, and rank 0 may still be writing.
        ranks.gather(None)
    except RuntimeError as error:
        # Rank 0 has written everything and no longer needs the others.
        if not (ranks.topology.is_main and is_lost_rank(error)):
            raise
    ranks.close()
    return finished


def train(task: Task, ranks: Collectives) -> bool:
    """Trains all stages; rank 0 also keeps the record. Returns False if SIGTERM stopped it, with its state saved."""
    task = settle_precision(task, ranks)
    training, topology, model, interrupted = task.settings.training, ranks.topology, task.model, task.interrupted
    pos_weight = loss_weights(task.card, training)
    stages = stages_of(training)
    epoch = interrupted.epoch if interrupted else 0
    with ExitStack() as stack:
        record = None
        if topology.is_main:
            # Imported here, so that no other rank pays for its imports.
            from training.record.record import Record

            record = stack.enter_context(Record(task, topology, pos_weight.numpy(), interrupted))
        run_id = ranks.broadcast(record.run.run_id if record else None)
        if task.workspace.tracking_server and topology.local_rank == 0 and not topology.is_main:
            # One rank of each other host reports to the server; a database file serves one host alone.
            from training.record.store import monitored_host

            stack.enter_context(monitored_host(task.workspace, run_id))
        interruption = Interruption(ranks, training.checkpoint_steps)
        bar = stack.enter_context(progress_bar(task.plan, stages, interrupted, topology.is_main))
        for index in range(interrupted.stage if interrupted else 0, len(stages)):
            # A Trainer registers gradient hooks that cannot be removed, so each stage has a model of its own.
            own = copy.deepcopy(model)
            frozen = stages[index].frozen(own)
            trainer = Trainer(own, stages[index].settings, task.plan, pos_weight, ranks, frozen=frozen, grid=task.grid)
            begun = interrupted if interrupted and interrupted.stage == index else None
            if begun:
                trainer.load(begun)
            if record:
                record.begin_stage(index, trainer)
            epoch = train_stage(trainer, record, interruption, bar, task.val, epoch, begun)
            if epoch < 0:
                return False
            model.load_state_dict(ranks.broadcast(record.best_weights() if record else None))
        bar.close()
        # The saved state is complete: SIGTERM may end what follows, and a resumed training repeats it.
        if interruption.close():
            if record:
                record.say_stopped(epoch, 0)
            return False
        trainer.model.load_state_dict(model.state_dict())
        val, test = trainer.predict(task.val), trainer.predict(task.test)
        peaks_mb = ranks.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        if record:
            record.finish(peaks_mb, val, test)
    return True


def train_stage(
    trainer: Trainer,
    record: "Record | None",
    interruption: Interruption,
    bar: Progress,
    val_split: Split,
    epoch: int,
    begun: State | None,
) -> int:
    """Trains all epochs of a stage. epoch: number of epochs trained before, over all stages.

    begun: the state from which the stage resumes. Returns the number of epochs trained by then, or -1 if SIGTERM
    stopped the stage, with its state saved.
    """
    step = begun.step if begun else 0
    end = epoch - (begun.stage_epoch if begun else 0) + trainer.settings.epochs
    while epoch < end and not trainer.ranks.broadcast(record is not None and record.is_enough):
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
                return -1
        predictions = trainer.predict(val_split)
        trainer.after_validation(predictions)
        line = record.add_epoch(trainer.result, predictions) if record else ""
        epoch, step = epoch + 1, 0
        state = trainer.state()
        if record:
            bar.write(line)
            record.save(epoch, step, state)
    return epoch


def progress_bar(plan: Plan, stages: list[Stage], interrupted: State | None, shown: bool) -> Progress:
    """Progress over the images of all epochs, which begins where a resumed training does."""
    done = 0
    if interrupted:
        done = plan.split.rows * interrupted.epoch + sum(plan.global_sizes[: interrupted.step])
    total = plan.split.rows * sum(stage.settings.epochs for stage in stages)
    return Progress("training", total, done=done, shown=shown)
