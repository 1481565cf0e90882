"""The cache keeps row groups within its bound, whoever shares it, and whatever happens to its files."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.settings import Training
from training.ranks.topology import Topology
from training.reading import cache as cache_module
from training.reading.cache import CRC_BYTES, RowGroupCache
from training.reading.plan import Split
from training.start.caching import cached

TABLE = pa.table({"image_id": ["a", "b"], "findings": [[1.0, None], [0.0, 1.0]], "image_8": [b"x" * 999, b"y" * 999]})
NEW, OLD = ([f"{part}-{group}" for group in range(4)] for part in ("new", "old"))
ALONE = Topology.detect("cpu", {})


def size_of_an_entry(folder: Path) -> int:
    one = RowGroupCache(folder, 10**9, [])
    one.get("x-0", lambda: TABLE)
    return entries(folder)["x-0"]


@pytest.fixture(scope="module")
def size(tmp_path_factory) -> int:
    return size_of_an_entry(tmp_path_factory.mktemp("one"))


def entries(folder: Path) -> dict[str, int]:
    """Name -> bytes of everything that the cache keeps or writes."""
    return {path.name: path.stat().st_size for path in (folder / "row_groups").iterdir()}


def counted(folder: Path) -> int:
    return int((folder / "bytes").read_text())


def fill(cache: RowGroupCache, names: list[str]) -> list[str]:
    """Asks for these row groups, and returns those that were read."""
    was_read: list[str] = []
    for name in names:
        assert cache.get(name, lambda name=name: was_read.append(name) or TABLE).equals(TABLE)
    return was_read


def test_a_row_group_is_read_once_by_all_who_share_the_folder(tmp_path, size):
    first = RowGroupCache(tmp_path, 10 * size, NEW)
    assert first.kept(NEW) == []
    assert fill(first, NEW) == NEW
    assert fill(first, NEW) == []
    other = RowGroupCache(tmp_path, 10 * size, NEW)
    assert other.kept([*OLD, *NEW]) == NEW
    assert fill(other, NEW) == []
    assert counted(tmp_path) == sum(entries(tmp_path).values()) == 4 * size


def test_a_row_group_that_two_fetch_at_a_time_counts_once(tmp_path, size):
    one, other = (RowGroupCache(tmp_path, 10 * size, NEW) for _ in range(2))
    assert one.get(NEW[0], lambda: other.get(NEW[0], lambda: TABLE)).equals(TABLE)
    assert counted(tmp_path) == sum(entries(tmp_path).values()) == size


def test_what_does_not_fit_is_read_each_time_and_nothing_in_use_is_dropped(tmp_path, size, capsys):
    cache = RowGroupCache(tmp_path, 3 * size - 1, NEW)
    assert fill(cache, NEW) == NEW
    assert fill(cache, NEW) == NEW[2:]
    assert counted(tmp_path) == sum(entries(tmp_path).values()) == 2 * size
    assert capsys.readouterr().err.count("is full") == 1
    # Another training on another table finds no room while this one runs.
    other = RowGroupCache(tmp_path, 3 * size - 1, OLD)
    assert fill(other, OLD) == OLD and sorted(entries(tmp_path)) == NEW[:2]


def test_what_no_running_training_reads_makes_room_and_the_oldest_goes_first(tmp_path, size):
    fill(RowGroupCache(tmp_path, 4 * size, OLD), OLD)
    for age, name in enumerate(OLD):
        os.utime(tmp_path / "row_groups" / name, (1000 - age, 1000 - age))
    cache = RowGroupCache(tmp_path, 4 * size, NEW)
    fill(cache, NEW[:2])
    assert sorted(entries(tmp_path)) == [*NEW[:2], *OLD[:2]]
    # What a training reads counts as new from its start on.
    again = RowGroupCache(tmp_path, 4 * size, OLD)
    assert fill(cache, NEW[2:]) == NEW[2:] and sorted(entries(tmp_path)) == [*NEW[:2], *OLD[:2]]
    assert fill(again, OLD[:2]) == []


def test_a_lower_limit_holds_from_the_start(tmp_path, size):
    fill(RowGroupCache(tmp_path, 8 * size, [*NEW, *OLD]), [*NEW, *OLD])
    RowGroupCache(tmp_path, 5 * size, NEW)
    assert len(entries(tmp_path)) == 5 and set(NEW) < set(entries(tmp_path))
    RowGroupCache(tmp_path, 2 * size, NEW)
    assert len(set(entries(tmp_path)) & set(NEW)) == len(entries(tmp_path)) == 2


def test_a_row_group_larger_than_the_cache_leaves_room_for_smaller_ones(tmp_path, size):
    cache = RowGroupCache(tmp_path, 2 * size, ["x-0", *NEW])
    large = pa.concat_tables([TABLE] * 5)
    assert cache.get("x-0", lambda: large).equals(large)
    fill(cache, NEW)
    assert sorted(entries(tmp_path)) == NEW[:2]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[:-100],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\0",
    "shorter than the checksum": lambda content: content[: CRC_BYTES - 1],
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("kind", [*DAMAGE, "another row group", "a folder"])
def test_a_damaged_entry_is_read_anew_and_said_once(tmp_path, size, kind, capsys):
    cache = RowGroupCache(tmp_path, 9 * size, NEW, speaks=False)
    fill(cache, NEW)
    for name in NEW[:2]:
        path = tmp_path / "row_groups" / name
        if kind == "a folder":
            path.unlink()
            path.mkdir()
        elif kind == "another row group":
            other = TABLE.slice(1)
            cache.get(f"x-{name}", lambda other=other: other)
            (tmp_path / "row_groups" / f"x-{name}").rename(path)
        else:
            path.write_bytes(DAMAGE[kind](path.read_bytes()))
    assert fill(cache, NEW) == NEW[:2]
    said = capsys.readouterr().err
    assert said.count("is damaged") == 1 and str(tmp_path / "row_groups" / NEW[0]) in said
    if kind != "a folder":
        assert fill(cache, NEW) == []


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_any_changed_bit_is_noticed(tmp_path_factory, at, bit):
    folder = tmp_path_factory.mktemp("bits")
    cache = RowGroupCache(folder, 10**9, NEW)
    fill(cache, NEW[:1])
    path = folder / "row_groups" / NEW[0]
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    assert fill(cache, NEW[:1]) == NEW[:1]
    assert fill(cache, NEW[:1]) == []


KILLED = """
import sys, os
from pathlib import Path
from training.reading.cache import RowGroupCache
from tests.training.reading.test_cache import NEW, TABLE
cache = RowGroupCache(Path(sys.argv[1]), 10**9, NEW)
cache.get(NEW[0], lambda: TABLE)
os.rename = Path.rename = lambda *_: os.kill(os.getpid(), 9)
cache.get(NEW[1], lambda: TABLE)
"""


def test_a_kill_while_writing_leaves_nothing_behind_after_the_next_start(tmp_path, size):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=Path(__file__).parents[3])
    assert killed.returncode == -signal.SIGKILL
    (left,) = (name for name in entries(tmp_path) if name.startswith("."))
    # A training on another table is no reason to keep it, and does not count it.
    cache = RowGroupCache(tmp_path, 2 * size, OLD)
    assert left not in entries(tmp_path)
    assert counted(tmp_path) == sum(entries(tmp_path).values()) == size
    assert len(list((tmp_path / "uses").iterdir())) == 1
    assert fill(cache, OLD[:1]) == OLD[:1] and fill(cache, [NEW[0], OLD[0]]) == []


def test_what_a_running_training_is_writing_stays_and_counts(tmp_path, size):
    cache = RowGroupCache(tmp_path, 2 * size, NEW)
    at_work, may_end = threading.Event(), threading.Event()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cache_module, "_crc", lambda *_: at_work.set() or (may_end.wait(10) and b"1234"))
        writer = threading.Thread(target=cache._keep, args=(NEW[0], TABLE))
        writer.start()
        assert at_work.wait(10)
        other = RowGroupCache(tmp_path, 2 * size, OLD)
        assert counted(tmp_path) == size == sum(entries(tmp_path).values())
        may_end.set()
        writer.join()
    assert fill(other, OLD) == OLD and counted(tmp_path) == 2 * size


def test_threads_and_processes_never_pass_the_bound(tmp_path, size):
    limit = 5 * size + 1
    caches = [RowGroupCache(tmp_path, limit, [f"{part}-{group}" for group in range(9)]) for part in "ab"]
    sizes: list[int] = []

    def work(cache: RowGroupCache, part: str) -> None:
        for group in range(9):
            cache.get(f"{part}-{group}", lambda: TABLE)
            with cache_module.locked(tmp_path, wait=True):
                sizes.append(sum(entries(tmp_path).values()))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(caches * 3, "ababab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Two threads may write the same row group, one of them in vain; meanwhile the cache is full for others.
    assert max(sizes) <= 5 * size
    assert size <= counted(tmp_path) == sum(entries(tmp_path).values())
    assert not any(name.startswith(".") for name in entries(tmp_path))


@pytest.mark.parametrize("content", ["", "x", None])
def test_a_lost_counter_is_counted_again(tmp_path, size, content):
    cache = RowGroupCache(tmp_path, 3 * size, NEW)
    fill(cache, NEW[:2])
    (tmp_path / "bytes").unlink() if content is None else (tmp_path / "bytes").write_text(content)
    fill(cache, NEW)
    assert counted(tmp_path) == sum(entries(tmp_path).values()) == 3 * size


def test_a_folder_that_disappears_is_said_once_and_training_continues(tmp_path, size, capsys):
    cache = RowGroupCache(tmp_path / "cache", 9 * size, NEW)
    (tmp_path / "cache" / "row_groups").rename(tmp_path / "elsewhere")
    assert fill(cache, NEW) == NEW and fill(cache, NEW) == NEW
    assert cache.kept(NEW) == []
    assert capsys.readouterr().err.count("cannot be written (No such file or directory)") == 1


@pytest.fixture
def tiny_disk(tmp_path) -> Path:
    """A disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_once_and_what_is_kept_stays(tiny_disk, capsys):
    cache = RowGroupCache(tiny_disk, 10**9, [f"x-{group}" for group in range(99)])
    names = [f"x-{group}" for group in range(99)]
    assert fill(cache, names) == names
    kept = cache.kept(names)
    assert 5 < len(kept) < 20 and len(kept) == len(entries(tiny_disk))
    assert fill(cache, names) == [name for name in names if name not in kept]
    assert counted(tiny_disk) == sum(entries(tiny_disk).values())
    assert capsys.readouterr().err.count("cannot be written (No space left on device)") == 1


SPLIT = Split("train", ["s3://bucket/x.parquet"], [1], 8)


def test_a_disk_that_is_full_from_the_start_is_said(tiny_disk, capsys, monkeypatch):
    monkeypatch.setattr("training.start.caching.entry_names", lambda *_: {"x-0": 1})
    with pytest.raises(OSError):
        (tiny_disk / "fill").write_bytes(bytes(10**6))
    assert cached([SPLIT], Training(cache_dir=str(tiny_disk)), ALONE) == [SPLIT]
    assert "is full: the training has no cache" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://bucket/cache", "training.cache_dir is 's3://bucket/cache', expected a folder of this machine"),
        ("FILE", r"training.cache_dir .*FILE cannot be used \(Not a directory\): choose a folder on a local disk"),
        ("/proc/cache", r"training.cache_dir /proc/cache cannot be used .*: choose a folder on a local disk"),
    ],
)
def test_a_place_that_cannot_be_a_cache_is_refused(place, message, tmp_path, monkeypatch):
    monkeypatch.setattr("training.start.caching.entry_names", lambda *_: {"x-0": 1})
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    with pytest.raises(InputError, match=message):
        cached([SPLIT], Training(cache_dir=place), ALONE)


def test_a_table_on_this_machine_needs_no_cache_and_that_is_said(tmp_path, capsys):
    local = [Split("train", [str(tmp_path / "x.parquet")], [1], 8)]
    assert cached(local, Training(cache_dir=str(tmp_path / "cache")), ALONE) == local
    assert not (tmp_path / "cache").exists()
    assert "is not used, because the table is not in a store" in capsys.readouterr().err


@pytest.mark.parametrize(("limit_gb", "said"), [(1, None), (1e-6, "it takes 1e-06 GB"), (1e-9, "a row group has up")])
def test_the_start_says_how_much_is_kept(limit_gb, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.start.caching.entry_names", lambda *_: dict.fromkeys(NEW, 999))
    cached([SPLIT], Training(cache_dir=str(tmp_path), cache_gb=limit_gb), ALONE)
    output = capsys.readouterr().out
    assert re.search(r"has 0 of the 4e-06 GB", output)
    assert (said in output) if said else output.count("Cache:") == 1
