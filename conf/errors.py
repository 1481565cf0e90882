"""The error for wrong input or settings, and how a command ends on it."""

import errno
import os
import select
import sys
from collections.abc import Callable

from conf.startup import quick_end

EXIT_INPUT_ERROR = 2
EXIT_BROKEN_PIPE = 141
"""128 plus SIGPIPE, as for programs that the signal ends"""
STDOUT = 1
OWN = ("conf", "etl", "training", "inference", "jobs")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
LOST = (errno.ESTALE, errno.ENOTCONN, errno.EIO)
"""what a network's file system answers whose server is gone, or that was unmounted"""


class InputError(ValueError):
    """Wrong input or settings. The message says what, where, got, expected and the next step."""


def run_command(main: Callable[[], None]) -> None:
    """Runs an entry file's main. An InputError, a disk that is full or gone, or a package that is not installed
    ends it with a message and exit code 2, no traceback.

    If the reader of its output goes away, as `| head` does, it ends quietly; on Ctrl-C it ends with 130. Any other
    exception is a bug or a broken machine, and keeps its traceback.
    """
    with quick_end(main):
        _run(main)


def _run(main: Callable[[], None]) -> None:
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_INPUT_ERROR)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("", *OWN):
            raise
        advice = "run `make setup`; where pip installed CheXScale, add the extras that docs/environment.md lists"
        print(f"error: the Python module {name} is not installed, but this command needs it: {advice}", file=sys.stderr)
        sys.exit(EXIT_INPUT_ERROR)
    except BrokenPipeError:
        if not _output_is_unread():
            raise
        # Otherwise Python would try to write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno not in NO_SPACE + LOST:
            raise
        place = error.filename or "a file"
        if error.errno in LOST:
            said = f"{place} is on a file system that no longer answers ({error.strerror}): mount it again"
        else:
            said = f"no space left for {place} ({error.strerror}): free some space"
        again = "run the same command again: it resumes from what was completed"
        print(f"error: {said} and {again}", file=sys.stderr)
        sys.exit(EXIT_INPUT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)


def _output_is_unread() -> bool:
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
