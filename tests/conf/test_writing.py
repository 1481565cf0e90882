import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from conf.writing import LOCK, atomic_folder, atomic_path, locked


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "card.json"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture(params=["exchange", "bindfs"])
def folder(request, tmp_path):
    """A folder on a file system that exchanges two names in one step, and on one that refuses to."""
    if request.param == "exchange":
        yield tmp_path
        return
    if not (shutil.which("bindfs") and os.access("/dev/fuse", os.W_OK)):
        pytest.skip("needs bindfs and FUSE: apt-get install bindfs")
    (tmp_path / "behind").mkdir()
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["bindfs", tmp_path / "behind", mount], check=True)
    yield mount
    subprocess.run(["fusermount", "-u", mount], check=True)


def test_an_error_leaves_the_old_folder_and_success_the_new(folder):
    target = folder / "model"
    with atomic_folder(target) as building:
        (building / "old").touch()
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as building:
        (building / "half").touch()
        raise ZeroDivisionError
    assert [path.name for path in folder.rglob("*")] == ["model", "old"]
    with atomic_folder(target) as building:
        (building / "new").touch()
    assert [path.name for path in folder.rglob("*")] == ["model", "new"]


def test_a_kill_at_each_step_leaves_the_old_folder_or_the_new(folder):
    """The process is killed in its first, second, ... call of the system that changes a folder, until none is left."""
    for call in range(1, 20):
        with atomic_folder(folder / "model") as building:
            (building / "old").touch()
        killed = subprocess.run([sys.executable, "-c", KILLED, folder, str(call)], check=False)
        here = (folder / "model").exists()
        if here:
            assert [path.name for path in (folder / "model").iterdir()] in (["old"], ["new"])
        with pytest.raises(ZeroDivisionError), atomic_folder(folder / "model"):
            raise ZeroDivisionError
        assert [path.name for path in folder.rglob("*")] in (["model", "old"], ["model", "new"])
        if killed.returncode == 0:
            return
    raise AssertionError("the process was never left alone")


KILLED = """
import os, pathlib, sys
from conf.writing import atomic_folder
left = int(sys.argv[2])
def count(event, arguments):
    global left
    if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "ctypes.dlopen"):
        left -= 1
        if not left:
            os._exit(9)
sys.addaudithook(count)
with atomic_folder(pathlib.Path(sys.argv[1], "model")) as building:
    (building / "new").touch()
"""

HOLDER = """
import sys, time
from pathlib import Path
from conf.writing import locked
with locked(Path(sys.argv[1]), wait=sys.argv[2] == "wait"):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_locked_for_others_until_its_process_is_killed(folder):
    with subprocess.Popen([sys.executable, "-c", HOLDER, folder, "now"], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "mine\n"
        with pytest.raises(BlockingIOError), locked(folder, wait=False):
            pass
        holder.kill()
    with locked(folder, wait=False):
        pass


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOENT])
def test_a_lock_that_another_host_removes_meanwhile_is_made_again(tmp_path, monkeypatch, number):
    lock, removals = fcntl.flock, [1, 2, 3]

    def removed(*arguments) -> None:
        if removals:
            (tmp_path / LOCK).unlink()
            raise OSError(number, f"removed {removals.pop()}")
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", removed)
    with locked(tmp_path, wait=False) as held:
        assert os.path.samestat(os.fstat(held), (tmp_path / LOCK).stat())
    removals[:] = range(1000)
    with pytest.raises(OSError, match="removed"), locked(tmp_path, wait=False):
        pytest.fail("it was never locked")


def test_whoever_waits_for_a_lock_that_is_removed_has_the_new_one(tmp_path):
    with locked(tmp_path, wait=False):
        waiting = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path, "wait"], stdout=subprocess.PIPE, text=True)
        while f"/{LOCK}" not in _open_files(waiting.pid):
            time.sleep(0.01)
        (tmp_path / LOCK).unlink()
    with waiting:
        assert waiting.stdout.readline() == "mine\n"
        with pytest.raises(BlockingIOError), locked(tmp_path, wait=False):
            pass
        waiting.kill()


def _open_files(pid: int) -> str:
    found = []
    for link in os.scandir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:
            continue
    return json.dumps(found)
