"""A disk that is really full, or that went away, whatever the library above makes of it."""

import errno
import shutil
import sqlite3
import subprocess
from contextlib import suppress

import pytest
import torch

from conf.disks import named_if_full
from conf.errors import InputError
from tests.processes import wait_for


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_by_torch(folder):
    torch.save(torch.zeros(100_000), folder / "weights.pt")


def fill_by_sqlite(folder):
    with sqlite3.connect(folder / "database") as database:
        database.execute("CREATE TABLE one (value)")
        try:
            database.execute("INSERT INTO one VALUES (zeroblob(100000))")
        except sqlite3.Error as error:
            # As MLflow does.
            raise RuntimeError(f"cannot log: {error}") from error


def fill_by_copying(folder):
    source = folder.with_name("source")
    source.write_bytes(bytes(100_000))
    shutil.copy(source, folder / "copy")


@pytest.mark.parametrize("fill", [fill_by_torch, fill_by_sqlite, fill_by_copying])
def test_a_full_disk_is_named_whatever_the_library_says(fill, small_disk):
    with pytest.raises(OSError) as raised, named_if_full(small_disk / "model"):
        fill(small_disk)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(small_disk / "model"))


def test_a_full_disk_of_temporary_files_is_named_and_not_that_of_the_model(small_disk, tmp_path):
    with pytest.raises(OSError) as raised, named_if_full(tmp_path / "model"):
        fill_by_copying(small_disk)
    assert raised.value.filename == str(small_disk / "copy")


def test_a_lost_disk_that_is_only_read_is_named(tmp_path):
    with pytest.raises(OSError) as raised, named_if_full(tmp_path / "model"):
        raise OSError(errno.ESTALE, "Stale file handle", "/table/file")
    assert (raised.value.errno, raised.value.filename) == (errno.ESTALE, "/table/file")


def test_other_errors_stay_as_they_are(small_disk, tmp_path):
    with suppress(OSError):
        fill_by_copying(small_disk)
    for error in (
        RuntimeError("iostream error"),
        PermissionError(errno.EACCES, "no"),
        InputError("disk is full: free some"),
    ):
        with pytest.raises(type(error)) as raised, named_if_full(tmp_path / "model"):
            raise error
        assert raised.value is error
    for bug in (KeyError, RuntimeError):
        with pytest.raises(bug), named_if_full(small_disk / "model"):
            raise bug("a bug, at such a moment")


def test_a_database_that_fails_on_a_disk_with_room_is_no_full_disk(tmp_path):
    with pytest.raises(OSError) as raised, named_if_full(tmp_path / "model"):
        raise sqlite3.OperationalError("disk I/O error")
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(tmp_path / "model"))


def test_the_disk_of_the_current_folder_says_nothing_about_a_server(small_disk, monkeypatch):
    monkeypatch.chdir(small_disk)
    with suppress(OSError):
        fill_by_copying(small_disk)
    with pytest.raises(RuntimeError), named_if_full("http://host:5000"):
        raise RuntimeError("iostream error")


def test_a_disk_that_went_away_is_named(tmp_path):
    if not shutil.which("bindfs"):
        pytest.skip("needs bindfs")
    (tmp_path / "source").mkdir()
    folder = tmp_path / "disk"
    folder.mkdir()
    with subprocess.Popen(["bindfs", "-f", str(tmp_path / "source"), str(folder)]) as server:
        try:
            wait_for(folder.is_mount)
            with sqlite3.connect(folder / "database") as database:
                database.execute("CREATE TABLE one (value)")
                server.kill()
                server.wait()
                with pytest.raises(OSError) as raised, named_if_full(folder / "model"):
                    database.execute("INSERT INTO one VALUES (1)")
            assert (raised.value.errno, raised.value.filename) == (errno.ENOTCONN, str(folder / "model"))
        finally:
            server.kill()
            subprocess.run(["umount", "-l", str(folder)], check=True)
