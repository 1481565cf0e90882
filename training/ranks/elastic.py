"""Goes on with the ranks that are left, where `horovodrun --min-np` started them.

The collectives of a lost rank's peers fail. Each peer leaves the workspace and the MLflow run, joins the others again
under a new rank, and the training goes on from checkpoints/last.pt, its steps shared out among fewer ranks.
"""

import gc
import math
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace

from conf.errors import InputError
from conf.settings import Settings, Training
from conf.workspace import Workspace
from training.network.checkpoint import LAST
from training.ranks.collectives import Collectives, is_lost_rank, rejoin
from training.ranks.topology import Topology


def is_elastic(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher lets the other ranks live when one is lost: horovodrun with a discovery script."""
    return environ.get("HOROVOD_ELASTIC") == "1"


def run_elastic(settings: Settings, run_rank: Callable[[Settings], None]) -> None:
    """Runs a training as one of the ranks, again after each loss of another one, until it has ended.

    Raises InputError where the ranks that are left cannot share the steps, or are too few for the launcher.
    """
    first_ranks, others_state, before = 0, 0, None
    last = Workspace.at(settings.workspace).checkpoints / LAST
    while True:
        try:
            ranks = join(settings)
            known = begin_or_go_on(settings, first_ranks, others_state, ranks.topology)
            first_ranks, others_state, resume = ranks.broadcast(known)
            training = share_out(settings.training, first_ranks, ranks.topology.world_size)
            run_rank(replace(settings, training=replace(training, resume=resume)))
            return
        except RuntimeError as error:
            here = os.environ["HOROVOD_SIZE"], last.stat().st_mtime_ns if last.exists() else 0
            # As many ranks again, and not a state further: that is no lost rank.
            if not is_lost_rank(error) or here == before:
                raise
            before = here
        # The readers' threads and the model of before, which the error held.
        gc.collect()
        # What was to be saved is on the disk: SIGTERM may end a rank that waits for the others.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        rejoin()


def join(settings: Settings) -> Collectives:
    """The collectives of all ranks. Raises InputError where these are not Horovod's, which alone outlive a rank."""
    topology = Topology.detect(settings.training.device)
    if topology.backend != "horovod":
        raise InputError(
            f"horovodrun --min-np needs Horovod's collectives, these ranks on {topology.device} speak by "
            f"{topology.backend}: leave out --min-np and the discovery script, or choose another training.device"
        )
    return Collectives(topology)


def begin_or_go_on(
    settings: Settings, first_ranks: int, others_state: int, topology: Topology
) -> tuple[int, int, bool]:
    """The number of ranks that the training began with, the state of another training that lay there then, and whether
    there is a state of this one to go on from.

    first_ranks: 0 in a process that has not begun. others_state: its time in nanoseconds, 0 none. Rank 0's answer is
    the one that counts.
    """
    last = Workspace.at(settings.workspace).checkpoints / LAST
    saved = last.stat().st_mtime_ns if topology.is_main and last.exists() else 0
    if not first_ranks:
        resume = settings.training.resume
        return topology.world_size, 0 if resume else saved, resume
    resume = saved not in (0, others_state)
    if topology.is_main:
        whence = "its last saved state" if resume else "its start, as no state of it was saved yet"
        print(f"Lost a rank: {topology.world_size} of {first_ranks} go on from {whence}", flush=True)
    return first_ranks, others_state, resume


def share_out(training: Training, first_ranks: int, num_ranks: int) -> Training:
    """The settings by which `num_ranks` ranks do the steps of a training that `first_ranks` began.

    Images per step of all ranks and streams stay, and so do, rounded down, the images that a rank holds in memory at
    once. Raises InputError where the images of a step cannot be shared out.
    """
    images = training.batch_size * first_ranks
    if images % num_ranks:
        raise InputError(
            f"expected training.batch_size ({training.batch_size}) * ranks at the start ({first_ranks}) = a whole "
            f"number * ranks now ({num_ranks}): got {images} / {num_ranks}; start again with --training.resume true "
            f"on a number of ranks that divides {images}"
        )
    return replace(
        training,
        batch_size=images // num_ranks,
        streams=training.streams or first_ranks,
        accumulation=math.ceil(training.accumulation * first_ranks / num_ranks),
    )
