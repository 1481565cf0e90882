"""Sets up everything that the project needs on this machine; leaves alone what is already there.

python3 -m jobs.setup     in the project's folder, with any Python; `make setup` finds the right one
"""

import errno
import sys
import time
from pathlib import Path

from jobs.setup import preflight

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def main() -> int:
    """Checks the machine, then runs each unfinished step. Returns exit code 2 for a known problem."""
    root = Path(__file__).resolve().parents[2]
    if preflight.check_python():
        return run_with_managed_python(root)

    from jobs.setup import steps
    from jobs.setup.commands import SetupError

    started = time.monotonic()
    try:
        problems = preflight.find_problems(root, steps.is_fetching(), steps.is_installing(), steps.is_building())
        if problems:
            return refuse(preflight.report(problems))
        if steps.run_pending() == 0:
            print(f"set-up: nothing to do ({time.monotonic() - started:.1f} s)")
    except SetupError as error:
        return refuse(str(error))
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED:
            raise
        return refuse(f"{error}\n  next step: free some space or fix the permissions there, then run set-up again")
    except KeyboardInterrupt:
        print("\nset-up: stopped; the next run resumes from here", file=sys.stderr)
        return 130
    return 0


def run_with_managed_python(root: Path) -> int:
    """Starts set-up again with a Python that uv supplies; returns exit code 2 if this or anything else is impossible.

    The steps need Python 3.11 even to say what is pending, so the preflight checks all that a first set-up needs.
    """
    from jobs.setup import managed_python
    from jobs.setup.commands import SetupError

    managed, fetching = managed_python.is_possible(), managed_python.is_uv_missing()
    problems = preflight.find_problems(root, fetching, installing=True, building=True, managed=managed)
    if problems:
        return refuse(preflight.report(problems))
    try:
        managed_python.start_again(root)
    except SetupError as error:
        return refuse(str(error))


def refuse(message: str) -> int:
    print(f"set-up: {message}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
