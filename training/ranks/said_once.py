"""An error that all ranks have is said once, by rank 0; one that only some ranks have is said with its rank.

No rank asks another one, which may have ended or may wait in a collective. Rank 0 says its error at once. Each other
rank waits with its own; if rank 0 has the same error, the launcher ends this rank meanwhile.
"""

import io
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from time import sleep
from types import FrameType
from typing import TypeVar

from conf.errors import EXIT_INPUT_ERROR, InputError
from training.ranks.place import launched_place

RANK_0_SPEAKS_FIRST_S = 10
"""a launcher under load takes seconds to notice that rank 0 has ended"""
RANKS_APART_S = 3
"""time between two ranks of a host that have an error which rank 0 lacks"""
Loaded = TypeVar("Loaded")


class LostRankError(InputError):
    """A collective has failed because another rank has ended."""


@contextmanager
def said_once(environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Lets an error out of the block at once on rank 0; on another rank, names the rank and lets it out later.

    If the launcher sends SIGTERM before, this rank ends without a word.
    """
    try:
        yield
    except SystemExit as end:
        # argparse ends the process itself.
        if end.code:
            _point_torchrun_to_the_message(environ)
        raise
    except Exception as error:
        rank, local_rank = launched_place(environ)
        if rank == 0:
            _point_torchrun_to_the_message(environ)
            raise
        # If rank 0 is the lost one, only another rank can report it, and the launcher leaves no time to wait.
        if not (isinstance(error, LostRankError) and rank == 1):
            _wait(RANK_0_SPEAKS_FIRST_S + RANKS_APART_S * local_rank, error, environ)
        _point_torchrun_to_the_message(environ)
        here = f"rank {rank} on {socket.gethostname()}"
        if isinstance(error, InputError):
            raise InputError(f"{here}: {error}") from error
        error.add_note(f"on {here}")
        raise


def shown_by_rank_0(load: Callable[[], Loaded], environ: Mapping[str, str] = os.environ) -> Loaded:
    """Returns load(), which reads the command line; only rank 0 shows what it prints.

    Raises InputError on another rank if load() ends the process because of a wrong argument.
    """
    if launched_place(environ)[0] == 0:
        return load()
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return load()
    except SystemExit as end:
        if not end.code:
            raise
        raise InputError(said.getvalue().rpartition("error: ")[2].strip()) from end


def _wait(seconds: float, error: Exception, environ: Mapping[str, str]) -> None:
    def end_silently(signum: int, frame: FrameType | None) -> None:
        _point_torchrun_to_the_message(environ)
        os._exit(EXIT_INPUT_ERROR if isinstance(error, InputError) else 1)

    before = signal.signal(signal.SIGTERM, end_silently)
    sleep(seconds)
    signal.signal(signal.SIGTERM, before)


def _point_torchrun_to_the_message(environ: Mapping[str, str]) -> None:
    """Has torchrun's closing summary name the message instead of a page about tracebacks.

    Its root cause is the rank that calls this first, so a rank that waits calls it at its end.
    Format: torch.distributed.elastic.multiprocessing.errors.ErrorHandler.record_exception.
    """
    file = environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        extra = {"py_callstack": "see its message above this summary", "timestamp": str(int(time.time()))}
        Path(file).write_text(json.dumps({"message": {"message": extra["py_callstack"], "extraInfo": extra}}))
