"""The error that means "the input or the settings are wrong", and how a command ends on it."""

import errno
import os
import select
import sys
from collections.abc import Callable

EXIT_INPUT_ERROR = 2
EXIT_BROKEN_PIPE = 141
"""128 and SIGPIPE, as of programs that the signal ends"""
STDOUT = 1
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """Wrong input or settings. The message says what, where, got, expected and the next step."""


def run_command(main: Callable[[], None]) -> None:
    """Runs an entry file's main: an InputError, or a full disk, ends with its message and exit code 2, no traceback.

    A reader of its output that goes away, as `| head` does, ends it quietly, and Ctrl-C with 130. Any other exception
    is a bug or a broken machine and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_INPUT_ERROR)
    except BrokenPipeError:
        if not _output_is_unread():
            raise
        # Keeps Python from writing the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        advice = "free some, and run the same command again: it goes on from what is whole"
        print(f"error: no space left for {error.filename or 'a file'} ({error.strerror}): {advice}", file=sys.stderr)
        sys.exit(EXIT_INPUT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)


def _output_is_unread() -> bool:
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
