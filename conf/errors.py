"""The error that means "the input or the settings are wrong", and how a command ends on it."""

import errno
import sys
from collections.abc import Callable

EXIT_INPUT_ERROR = 2
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """Wrong input or settings. The message says what, where, got, expected and the next step."""


def run_command(main: Callable[[], None]) -> None:
    """Runs an entry file's main: an InputError, or a full disk, ends with its message and exit code 2, no traceback.

    Any other exception is a bug or a broken machine and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_INPUT_ERROR)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        advice = "free some, and run the same command again: it goes on from what is whole"
        print(f"error: no space left for {error.filename or 'a file'} ({error.strerror}): {advice}", file=sys.stderr)
        sys.exit(EXIT_INPUT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
