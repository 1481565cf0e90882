import json
import subprocess
import sys

import pytest

from conf.errors import InputError
from conf.workspace import Workspace, atomic_folder, atomic_path, update_summary


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "card.json"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_old_folder_and_success_the_new(tmp_path):
    target = tmp_path / "model"
    with atomic_folder(target) as building:
        (building / "old").touch()
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as building:
        (building / "half").touch()
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]
    with atomic_folder(target) as building:
        (building / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "new"]


# Just before the one step that exchanges the folders, and just after it.
@pytest.mark.parametrize(("killed_in", "left"), [("ctypes.CDLL", "old"), ("shutil.rmtree", "new")])
def test_a_kill_leaves_the_old_folder_or_the_new(tmp_path, killed_in, left):
    with atomic_folder(tmp_path / "model") as building:
        (building / "old").touch()
    killed = f"""
import os, shutil, ctypes, pathlib
from conf.workspace import atomic_folder
with atomic_folder(pathlib.Path({str(tmp_path)!r}, "model")) as building:
    (building / "new").touch()
    {killed_in} = lambda *_, **__: os._exit(9)
"""
    subprocess.run([sys.executable, "-c", killed], check=False)
    assert [path.name for path in (tmp_path / "model").iterdir()] == [left]
    with atomic_folder(tmp_path / "model") as building:
        (building / "newer").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "newer"]


def test_sections_of_the_summary_are_merged(tmp_path):
    workspace = Workspace.at(str(tmp_path))
    update_summary(workspace, data={"images": 3}, peak_memory_mb={"etl_worker": 1})
    update_summary(workspace, peak_memory_mb={"register": 2})
    assert json.loads(workspace.summary.read_text()) == {
        "data": {"images": 3},
        "peak_memory_mb": {"etl_worker": 1, "register": 2},
    }


def test_a_second_command_in_the_same_workspace_is_refused(tmp_path):
    workspace = Workspace.at(str(tmp_path / "new"))
    second = f"""
from conf.workspace import Workspace
with Workspace.at({str(workspace.root)!r}).exclusive():
    pass
"""
    with workspace.exclusive():
        refused = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True, check=False)
    assert "InputError: another command is using" in refused.stderr
    assert not workspace.root.exists(), "an empty workspace is not left behind"
    subprocess.run([sys.executable, "-c", second], check=True)


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
