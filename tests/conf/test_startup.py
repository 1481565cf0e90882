"""Commands answer --help and a mistyped setting without loading a large library, and start and end without garbage."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conf.startup import quick_imports

PROJECT = Path(__file__).parents[2]
COMMANDS = [
    str(path.relative_to(PROJECT))
    for stage in ("etl", "training", "inference", "jobs")
    for path in sorted((PROJECT / stage).glob("*.py"))
    if path.stem != "__init__"
]
# fmt: off
LARGE = [
    "cv2", "deltalake", "fastapi", "fsspec", "horovod", "matplotlib", "mlflow", "nncf", "onnx",
    "openvino", "pandas", "petastorm", "pyarrow", "pydicom", "pyspark", "scipy", "sklearn", "torch",
    "torchvision", "uvicorn",
]
# fmt: on

# Runs the commands one after another; prints each one's exit code and the large libraries that are loaded by then.
RUN_ALL = """
import contextlib, io, json, runpy, sys

words, commands, large = json.loads(sys.argv[1])
ends = {}
for command in commands:
    sys.argv = [command, *words]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        try:
            runpy.run_path(command, run_name="__main__")
        except SystemExit as end:
            ends[command] = end.code, "usage:" in said.getvalue(), [name for name in large if name in sys.modules]
print(json.dumps(ends))
"""


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--training.epoch=3", 2)])
def test_every_command_answers_without_a_large_library(word, code):
    given = json.dumps([[word], COMMANDS, LARGE])
    ended = subprocess.run([sys.executable, "-c", RUN_ALL, given], cwd=PROJECT, capture_output=True, text=True)
    assert json.loads(ended.stdout) == {command: [code, True, []] for command in COMMANDS}, ended.stderr


def test_imports_collect_no_garbage_and_what_they_made_is_never_looked_at():
    frozen = gc.get_freeze_count()
    try:
        with quick_imports():
            assert not gc.isenabled()
            made = [[] for _ in range(1000)]
        assert gc.isenabled() and gc.get_freeze_count() >= frozen + len(made)
        with pytest.raises(ImportError), quick_imports():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_command_ends_without_a_last_collection_but_runs_what_waits_for_its_end():
    code = """
import atexit, gc, sys
from conf.errors import run_command

def main():
    atexit.register(print, "closed")
    gc.callbacks.append(lambda phase, info: print(phase, info["collected"]) if phase == "stop" else None)
    loop = []
    loop.append(loop)

run_command(main)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    # The collection at the end looks at nothing, so it finds nothing.
    assert set(ended.stdout.splitlines()) <= {"closed", "stop 0"} and "closed" in ended.stdout
