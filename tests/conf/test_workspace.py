import errno
import json
import os
import socket
import sqlite3
import subprocess
import sys

import pytest

from conf.errors import InputError
from conf.workspace import Workspace, update_summary


def test_sections_of_the_summary_are_merged(tmp_path):
    workspace = Workspace.at(str(tmp_path))
    update_summary(workspace, data={"images": 3}, peak_memory_mb={"etl_worker": 1})
    update_summary(workspace, peak_memory_mb={"register": 2})
    assert json.loads(workspace.summary.read_text()) == {
        "data": {"images": 3},
        "peak_memory_mb": {"etl_worker": 1, "register": 2},
    }


def test_a_second_command_in_the_same_workspace_is_refused_and_told_who_works_there(tmp_path):
    workspace = Workspace.at(str(tmp_path / "new"))
    second = f"""
from conf.workspace import Workspace
with Workspace.at({str(workspace.root)!r}).exclusive():
    pass
"""
    with workspace.exclusive():
        refused = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True, check=False)
    assert f"InputError: another command is using {workspace.root} (" in refused.stderr
    assert f" on {socket.gethostname()}, process {os.getpid()}, since " in refused.stderr
    assert not workspace.root.exists(), "an empty workspace is not left behind"
    subprocess.run([sys.executable, "-c", second], check=True)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("conf.writing.fcntl.flock", refuse)
    with pytest.raises(InputError, match="has no locks .* by --workspace"), Workspace.at(str(tmp_path)).exclusive():
        pass


def test_paths_that_cannot_be_a_workspace_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "a#b", tmp_path / "a%20b"):
        with pytest.raises(InputError, match=path.name):
            Workspace.at(str(path))


@pytest.mark.parametrize("name", ["a b", "Größe", "(1)", "a&b", "it's", "a;b,c=d+e@f~g", "{x}", "a:b$c!*", "日本"])
def test_other_characters_are_kept(tmp_path, name):
    assert Workspace.at(str(tmp_path / name)).tables("") == tuple(
        str(tmp_path / name / part) for part in ("shards", "quarantine")
    )


def test_a_file_system_that_cannot_hold_the_database_is_told_with_the_way_out(tmp_path, monkeypatch):
    Workspace.at(str(tmp_path)).check_database()
    assert not list(tmp_path.iterdir())

    def refuse(*_, **__):
        raise sqlite3.OperationalError("locking protocol")

    monkeypatch.setattr("conf.workspace.sqlite3.connect", refuse)
    Workspace.at(str(tmp_path), "http://mlflow:5000").check_database()
    with pytest.raises(InputError, match="locking protocol.*--tracking_server"):
        Workspace.at(str(tmp_path)).check_database()
