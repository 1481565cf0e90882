import os
import time

import pytest

from conf.errors import InputError
from etl.contract import ahead
from etl.contract.ahead import fetch_ahead
from etl.contract.listing import list_files
from etl.contract.storage import locate, located, read_bytes, ready


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b/Große, Aufnahme 1.PNG", "b/c/d.jpg", "notes.txt"):
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / name).write_bytes(name.encode())
    return locate(str(tmp_path / "films"))


def test_files_are_found_below_with_their_versions(folder):
    files = list_files(folder)
    assert files.index.tolist() == ["a.png", "b/Große, Aufnahme 1.PNG", "b/c/d.jpg", "notes.txt"]
    assert all(read_bytes(path) == name.encode() for name, path in files.path.items())
    before = files.file_version["a.png"]
    os.utime(folder / "a.png", (1, 1))
    assert list_files(folder).file_version["a.png"] != before


def test_links_are_followed_and_loops_end(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "e.png").write_bytes(b"e")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "b" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (tmp_path / "elsewhere" / "back").symlink_to(folder / "b")
    (folder / "gone.png").symlink_to("nowhere")
    files = list_files(folder)
    assert {os.path.realpath(path) for path in files.path[files.file_version != "absent"]} == {
        os.path.realpath(folder / name)
        for name in ("a.png", "b/Große, Aufnahme 1.PNG", "b/c/d.jpg", "notes.txt", "linked/e.png")
    }
    assert len(files) == 7
    assert files.file_version["gone.png"] == "absent"


def test_a_folder_to_which_a_link_leads_too_is_listed_under_its_own_name(folder, tmp_path):
    (folder / "a").mkdir()
    for link in (folder / "a_link", folder / "a" / "link", folder / "b" / "a_link"):
        link.symlink_to(folder / "b" / "c")
    assert list_files(folder).index.tolist() == ["a.png", "b/Große, Aufnahme 1.PNG", "b/c/d.jpg", "notes.txt"]


@pytest.mark.parametrize("store", [".cache", "lost+found", "#recycle"])
def test_a_folder_that_is_left_out_is_listed_under_the_name_of_a_link_to_it(folder, store):
    (folder / store / "C" / "deep").mkdir(parents=True)
    for name in ("1.png", "C/2.png", "C/deep/3.png"):
        (folder / store / name).write_bytes(b"c")
    (folder / ".again").symlink_to(folder / store / "C")
    (folder / "b" / "C").symlink_to(folder / store / "C")
    (folder / store / "up").symlink_to(folder / "b")
    (folder / ".self").symlink_to(folder / ".self")
    files = list_files(folder)
    assert set(files.index[files.file_version != "absent"]) - {".self"} == {
        *("a.png", "b/Große, Aufnahme 1.PNG", "b/c/d.jpg", "notes.txt"),
        *(f"{store}/1.png", "b/C/2.png", "b/C/deep/3.png"),
    }
    assert files.attrs["links"] == {f"{store}/C": "b/C", ".again": "b/C", f"{store}/up": "b"}


def test_the_first_bytes_alone_are_read_when_asked(folder):
    assert read_bytes(str(folder / "notes.txt"), 3) == b"not"


def test_a_pipe_is_not_opened(folder):
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(OSError, match="no ordinary file"):
        read_bytes(str(folder / "pipe.png"))


def test_an_unknown_kind_of_address_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"etl.source is 'nonsense://bucket', .* known are s3://, .*abfss://"):
        located("etl.source", "nonsense://bucket")


def test_a_client_that_lacks_a_package_or_a_library_is_named_before_anything_is_opened():
    with pytest.raises(InputError, match=r"etl.exclude: sftp://host/x cannot be reached \(.*paramiko"):
        located("etl.exclude", "sftp://host/x")
    with pytest.raises(InputError, match=r"etl.table: hdfs://127.0.0.1:9/x cannot be reached .*HADOOP_HOME"):
        ready("etl.table", "hdfs://127.0.0.1:9/x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_that_may_not_be_read_is_named(folder):
    os.chmod(folder / "b", 0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\)"):
            list_files(folder)
    finally:
        os.seteuid(0)


@pytest.fixture
def slow_store(monkeypatch):
    """Addresses memory://NUMBER whose content takes a while; the addresses on their way or fetched so far."""
    begun = []

    def read(address: str, limit: int = -1) -> bytes:
        if "://" in address:
            begun.append(address)
            time.sleep(0.02)
        if address.endswith("gone"):
            raise FileNotFoundError(2, "No such file or directory")
        return (address * 10).encode()[: limit if limit >= 0 else None]

    monkeypatch.setattr(ahead, "read_bytes", read)
    return begun


def test_files_of_a_store_are_fetched_ahead_in_order_and_in_a_bounded_number(slow_store):
    addresses = [f"memory://{number}" for number in range(30)]
    fetched = fetch_ahead(addresses)
    for number, address in enumerate(addresses):
        assert next(fetched)() == (address * 10).encode()
        assert number < len(slow_store) <= number + 1 + ahead.FETCHES
    assert next(fetched, None) is None
    assert sorted(slow_store) == sorted(addresses)


def test_leaving_early_fetches_nothing_more_and_faults_are_raised_in_their_place(slow_store):
    fetched = fetch_ahead(["memory://1", "memory://gone", "local", *(f"memory://{number}" for number in range(100))])
    assert next(fetched)() == b"memory://1" * 10
    with pytest.raises(FileNotFoundError):
        next(fetched)()
    assert next(fetched)() == b"local" * 10
    fetched.close()
    assert len(slow_store) <= 2 + ahead.FETCHES + 1


def test_a_large_file_is_fetched_whole_when_it_is_asked_for(slow_store, monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 50)
    (whole,) = fetch_ahead(["memory://1"])
    assert whole() == b"memory://1" * 10 and len(slow_store) == 2
    (part,) = fetch_ahead(["memory://1"], limit=20)
    assert part() == b"memory://1" * 2 and len(slow_store) == 3


def test_local_files_are_read_when_they_are_asked_for(folder):
    first, second = fetch_ahead([str(folder / "a.png"), str(folder / "notes.txt")], limit=2)
    (folder / "a.png").write_bytes(b"new")
    assert (first(), second()) == (b"ne", b"no")
