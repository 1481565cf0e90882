"""The error that means "the input or the settings are wrong", and how a command ends on it."""

import sys
from collections.abc import Callable

EXIT_INPUT_ERROR = 2


class InputError(ValueError):
    """Wrong input or settings. The message says what, where, got, expected and the next step."""


def run_command(main: Callable[[], None]) -> None:
    """Runs an entry file's main: an InputError ends with its message and exit code 2, without a traceback.

    Any other exception is a bug or a broken machine and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_INPUT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
