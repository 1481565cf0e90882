"""Set-up on a machine whose only Python does not fit, with a fake uv that records its arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Any Python becomes one that does not fit. Nothing else of the preflight depends on this machine.
SET_UP = """
import sys
from jobs.setup import __main__, preflight
version = sys.version_info
preflight.PYTHONS = ((3, 99),)
preflight.find_problems = lambda *args, **given: print(given) or ({problems})
sys.version_info = ({python})
sys.exit(__main__.main())
"""
PYTHON = """#!/bin/sh
echo "this is the managed Python: $@"
"""
UV = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$1 $2" in
    "--version ") echo "uv {version}" ;;
    "python install") exit {install} ;;
    "python find") echo {folder}/python ;;
esac
"""


@pytest.fixture
def set_up(tmp_path):
    """Returns a function that runs set-up, with the fake uv alone on the PATH, and returns the finished process."""

    def run(version="0.9.1", install=0, problems="[]", python="3, 13, 0") -> subprocess.CompletedProcess:
        for name, text in (
            ("uv", UV.format(folder=tmp_path, version=version, install=install)),
            ("python", PYTHON),
        ):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        code = SET_UP.format(problems=problems, python=python)
        environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        command = [sys.executable, "-c", code]
        environment["PYTHONPATH"] = str(ROOT)
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)

    return run


def calls(tmp_path) -> list[str]:
    return [line for line in (tmp_path / "calls").read_text().splitlines() if line != "--version"]


def test_a_python_of_uvs_is_taken_and_named_where_none_fits(set_up, tmp_path):
    done = set_up()
    assert done.returncode == 0, done.stderr
    assert "no Python 3.11 or 3.12 on PATH: taking Python 3.11 from uv" in done.stdout
    assert done.stdout.endswith("this is the managed Python: -m jobs.setup\n")
    assert calls(tmp_path) == ["python install --no-bin 3.11", "python find --managed-python --system 3.11"]
    # uv brings the headers too, so neither is asked for.
    assert "'managed': True" in done.stdout


def test_nothing_is_downloaded_before_the_rest_of_the_machine_is_ready(set_up, tmp_path):
    done = set_up(problems="[preflight.Missing('make: not on PATH', ('make',))]")
    assert done.returncode == 2
    assert "make: not on PATH" in done.stderr
    assert calls(tmp_path) == []


def test_a_download_that_fails_ends_with_the_ways_out(set_up, tmp_path):
    done = set_up(install=1)
    assert done.returncode == 2
    assert "UV_PYTHON_INSTALL_MIRROR" in done.stderr
    assert "Traceback" not in done.stderr
    assert calls(tmp_path) == ["python install --no-bin 3.11"]


def test_an_old_python_beside_an_old_uv_reports_what_to_install(set_up):
    done = set_up(version="0.5.0", python="3, 9, 0", problems="[preflight.check_python()]")
    assert done.returncode == 2
    assert "'managed': False" in done.stdout
    assert "needs 3.11 or 3.12" in done.stderr
    assert "install uv" in done.stderr
