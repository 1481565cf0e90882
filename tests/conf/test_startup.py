"""Commands answer --help and a mistyped setting without loading a large library, and start and end without garbage."""

import gc
import json
import os
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
# And multiprocessing, whose end must come before a command's own (quick_end in conf/startup.py).
# fmt: off
LARGE = [
    "cv2", "deltalake", "fastapi", "fsspec", "horovod", "matplotlib", "mlflow", "multiprocessing",
    "nncf", "onnx", "openvino", "pandas", "petastorm", "pyarrow", "pydicom", "pyspark", "scipy", "sklearn", "torch",
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
    code = 0
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        try:
            runpy.run_path(command, run_name="__main__")
        except SystemExit as end:
            code = end.code
    ends[command] = code, "usage:" in said.getvalue(), [name for name in large if name in sys.modules]
print(json.dumps(ends))
"""


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--training.epoch=3", 2)])
def test_every_command_answers_without_a_large_library(word, code):
    given = json.dumps([[word], COMMANDS, LARGE])
    ended = subprocess.run([sys.executable, "-c", RUN_ALL, given], cwd=PROJECT, capture_output=True, text=True)
    assert json.loads(ended.stdout) == {command: [code, True, []] for command in COMMANDS}, ended.stderr


def test_imports_collect_no_garbage_and_what_they_made_is_not_looked_at_again():
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


PROGRAM = """
import atexit, gc, sys, threading, time
from conf.errors import InputError, run_command
from conf.startup import quick_imports

class Lasting:
    def __del__(self):
        print("taken down")

def main():
    global kept
    with quick_imports():
        kept = Lasting()
        kept.itself = kept
    atexit.register(print, "closed")
    threading.Thread(target=lambda: (time.sleep(0.1), print("last words"))).start()
    {last}

{before}
run_command(main)
"""
ENDS = [
    ("pass", 0),
    ("sys.exit(5)", 5),
    ("sys.exit()", 0),
    ("sys.exit('gone')", 1),
    ("raise InputError('wrong')", 2),
    ("raise KeyboardInterrupt", 130),
    ("raise ValueError", 1),
]


def end_of(last: str, before: str = "", **options) -> subprocess.CompletedProcess:
    words = [sys.executable, "-c", PROGRAM.format(last=last, before=before)]
    # What is printed must wait for the end.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(words, cwd=PROJECT, env=environ, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(("last", "code"), ENDS)
def test_a_command_ends_at_once_with_its_code_when_all_else_is_done(last, code):
    ended = end_of(last, stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stdout.splitlines()) == (code, ["last words", "closed"])
    assert ("Traceback" in ended.stderr) == ("ValueError" in last)


def test_the_main_of_another_program_ends_it_in_the_usual_way():
    ended = end_of("pass", "import types; main = types.FunctionType(main.__code__, dict(globals()))", stdout=-1)
    assert (ended.returncode, ended.stdout.splitlines()) == (0, ["last words", "closed", "taken down"])


def test_output_that_cannot_be_written_is_still_an_error():
    with open("/dev/full", "w") as full:
        ended = end_of("pass", stdout=full)
    assert ended.returncode == 120 and "No space left" in ended.stderr
