"""OpenMP's threads spin only briefly while they wait, in every command, unless the user has said otherwise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conf.openmp import WAITING, let_waiting_threads_sleep

PROJECT = Path(__file__).parents[2]
CLEAN = {name: value for name, value in os.environ.items() if name not in WAITING}


@pytest.mark.parametrize("name", WAITING)
@pytest.mark.parametrize("value", ["ACTIVE", "0", ""])
def test_what_the_user_exported_wins(name, value):
    environ = {name: value, "HOME": "/"}
    let_waiting_threads_sleep(environ)
    assert environ == {name: value, "HOME": "/"}


def test_otherwise_threads_spin_briefly():
    environ = {}
    let_waiting_threads_sleep(environ)
    assert environ == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}


def spin_count(**exported: str) -> str:
    """What torch's OpenMP has read when it was loaded after this project's settings."""
    environ = {**CLEAN, **exported, "OMP_DISPLAY_ENV": "VERBOSE"}
    words = [sys.executable, "-c", "import conf, torch"]
    told = subprocess.run(words, cwd=PROJECT, env=environ, capture_output=True, text=True, check=True).stderr
    return re.search(r"GOMP_SPINCOUNT = '(\d+)'", told)[1]


def test_torchs_openmp_reads_it():
    assert spin_count() == "1000"
    assert spin_count(GOMP_SPINCOUNT="77") == "77"


# Runs the top of each file or module up to its first import of a library that loads OpenMP, or to its end.
FIRST_IMPORTS = """
import json, os, runpy, sys

class Reached(Exception):
    pass

class Watch:
    def find_spec(name, *_):
        if name in ("torch", "sklearn", "openvino"):
            raise Reached(name)

sys.meta_path.insert(0, Watch)
found = {}
for top in sys.argv[1:]:
    run, reached = runpy.run_path if top.endswith(".py") else runpy.run_module, False
    try:
        run(top, run_name="not main")
    except Reached:
        reached = True
    found[top] = reached, os.environ.pop("OMP_WAIT_POLICY", "not set yet")
    os.environ.pop("GOMP_SPINCOUNT", None)
    for name in list(sys.modules):
        if name.partition(".")[0] in ("conf", "etl", "training", "inference", "jobs"):
            del sys.modules[name]
print(json.dumps(found))
"""


def first_imports(tops: list[str]) -> dict[str, tuple[bool, str]]:
    """Whether each top imports a library that loads OpenMP, and how OpenMP's threads wait then or at the top's end."""
    words = [sys.executable, "-c", FIRST_IMPORTS, *tops]
    return json.loads(subprocess.run(words, cwd=PROJECT, env=CLEAN, capture_output=True, text=True, check=True).stdout)


def test_every_command_says_it_before_a_library_loads_openmp():
    stages = ("etl", "training", "inference", "jobs")
    commands = [str(path) for stage in stages for path in (PROJECT / stage).glob("*.py") if path.stem != "__init__"]
    found = first_imports(commands)
    assert len(found) > 10
    # Their main() imports the libraries.
    assert {command: told for command, told in found.items() if told != [False, "PASSIVE"]} == {}


def test_every_benchmark_says_it_too():
    paths = [path for path in (PROJECT / "jobs" / "benchmarks").rglob("*.py") if path.stem != "__init__"]
    found = first_imports([".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in paths])
    told = {module: waiting for module, (reached, waiting) in found.items() if reached}
    assert {"jobs.benchmarks.training.step", "jobs.benchmarks.gpu.__main__"} <= set(told)
    assert set(told.values()) == {"PASSIVE"}, told
