"""Continues a training with the remaining ranks when one is lost, under `horovodrun --min-np`.

The collectives of a lost rank's peers fail. Each peer leaves the workspace and the MLflow run and joins the others
again under a new rank. The training then resumes from checkpoints/last.pt, its steps divided among fewer ranks.
"""

import gc
import math
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace

from conf.arguments import Resume
from conf.errors import InputError
from conf.settings import Settings, Training
from conf.words import counted
from conf.workspace import Workspace
from training.network.checkpoint import LAST
from training.ranks.collectives import Collectives, is_lost_rank, rejoin
from training.ranks.topology import Topology


def is_elastic(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher keeps the other ranks alive when one is lost, as horovodrun with a discovery script does."""
    return environ.get("HOROVOD_ELASTIC") == "1"


def run_elastic(
    settings: Settings, workspace: Workspace, resume: Resume, run_rank: Callable[[Settings, Workspace, Resume], None]
) -> None:
    """Runs a training as one of its ranks, and again after each loss of another rank, until it has finished.

    resume: what it does about an earlier training when it begins.
    Raises InputError if the remaining ranks cannot share the steps, or are too few for the launcher.
    """
    first_ranks, others_state, attempts = 0, 0, []
    last = workspace.checkpoints / LAST
    while True:
        try:
            ranks = join(settings)
            saved = last.stat().st_mtime_ns if last.exists() else 0
            attempts = [*attempts, (ranks.topology.world_size, saved)]
            # Rank 0 alone may have the workspace, and a rank that joins later does not know what was before.
            first_ranks, others_state, attempts = ranks.broadcast((first_ranks, others_state, attempts))
            saved = attempts[-1][1]
            if repeats_itself(attempts):
                break
            first_ranks, others_state, resume = begin_or_resume(
                resume, saved, first_ranks, others_state, ranks.topology
            )
            training = share_steps(settings.training, first_ranks, ranks.topology.world_size)
            run_rank(replace(settings, training=training), workspace, resume)
            return
        except RuntimeError as error:
            if not is_lost_rank(error):
                raise
            failure = error.with_traceback(None)
        # Frees the readers' threads and the old model, which the traceback kept alive.
        gc.collect()
        # All that had to be saved is on disk, so SIGTERM may end a rank that waits for the others.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        rejoin()
    raise failure


def repeats_itself(attempts: list[tuple[int, int]]) -> bool:
    """Whether the last attempt had as many ranks as the one before and saved nothing: then no rank was lost.

    attempts: number of ranks, and last.pt's modification time, at the beginning of each attempt, and now.
    """
    if len(attempts) < 3:
        return False
    (before, _), (ranks, saved), (_, saved_now) = attempts[-3:]
    return ranks == before and saved == saved_now


def join(settings: Settings) -> Collectives:
    """The collectives of all ranks. Raises InputError unless they are Horovod's, which alone survive a lost rank."""
    topology = Topology.detect(settings.training.device)
    if topology.backend != "horovod":
        raise InputError(
            f"horovodrun --min-np needs Horovod's collectives, but these ranks on {topology.device} use "
            f"{topology.backend}: leave out --min-np and the discovery script, or choose another training.device"
        )
    return Collectives(topology)


def begin_or_resume(
    resume: Resume, saved: int, first_ranks: int, others_state: int, topology: Topology
) -> tuple[int, int, Resume]:
    """Decides whether the training begins, or resumes from a saved state of its own.

    resume: what a training that has not begun is to do. saved: modification time of last.pt, in nanoseconds; 0 without.
    first_ranks: number of ranks that the training began with; 0 in a process that has not begun. others_state:
    the same of a last.pt that another training had left there by then.
    Returns first_ranks, others_state, and whether there is a state of this training to resume from; AUTO stays, because
    it asks the state itself.
    """
    if not first_ranks:
        return topology.world_size, 0 if resume == Resume.YES else saved, resume
    is_own = saved not in (0, others_state)
    if resume != Resume.AUTO:
        resume = Resume.YES if is_own else Resume.NO
    if topology.is_main:
        whence = "the last saved state" if is_own else "the start, as no state was saved yet"
        print(
            f"Lost a rank: continuing with {topology.world_size} of {counted(first_ranks, 'rank')} from {whence}",
            flush=True,
        )
    return first_ranks, others_state, resume


def share_steps(training: Training, first_ranks: int, num_ranks: int) -> Training:
    """The settings with which `num_ranks` ranks do the steps of a training that `first_ranks` ranks began.

    The images per step of all ranks and the number of streams stay the same, and a rank holds no more images in memory
    at once. Raises InputError if the images of a step cannot be divided evenly among the ranks.
    """
    images = training.batch_size * first_ranks
    if images % num_ranks:
        raise InputError(
            f"expected training.batch_size ({training.batch_size}) * ranks at the start ({first_ranks}) to be a "
            f"multiple of the ranks now ({num_ranks}): got {images} / {num_ranks}; start again with --resume "
            f"on a number of ranks that divides {images}"
        )
    return replace(
        training,
        batch_size=images // num_ranks,
        streams=training.streams or first_ranks,
        accumulation=math.ceil(training.accumulation * first_ranks / num_ranks),
    )
