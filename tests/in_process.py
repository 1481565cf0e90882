"""Commands that a test runs in its own process, which has their imports already."""

import io
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def run_here(script: Path | str, *arguments: object, columns: int = 200) -> Ended:
    """Runs a command's file with these arguments. columns: width of the terminal."""
    code, stdout, stderr = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        # As in a process of its own.
        patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        patch.setenv("COLUMNS", str(columns))
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as exit_:
            code = exit_.code
    return Ended(code, stdout.getvalue(), stderr.getvalue())
