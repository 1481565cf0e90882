"""Row groups come in one order however many are fetched at once, bounded in number, and their faults are said."""

import random
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from etl.contract.row_groups import Parts, _ranges, footer_of, read_row_groups
from training.reading import streams
from training.reading.streams import read_stream

ROWS = [3, 1, 2, 5, 4, 2, 1, 3, 2, 6, 1, 2]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Two files with the row groups ROWS; each row's number is that of its row group."""
    folder = tmp_path_factory.mktemp("streams")
    for part, rows in enumerate((ROWS[:7], ROWS[7:])):
        with pq.ParquetWriter(
            folder / f"{part}.parquet", pa.schema({"at": pa.int32(), "other": pa.binary()})
        ) as writer:
            for index, number in enumerate(rows):
                table = pa.table({"at": pa.array([7 * part + index] * number, pa.int32()), "other": [b"x"] * number})
                writer.write_table(table)
    return [str(folder / "0.parquet"), str(folder / "1.parquet")]


def read(files: list[str], seed: int | None = 1, workers: int = 1, ahead: int = 3, stream=0, num_streams=1, skip=0):
    row_groups = read_stream(
        files, ROWS, ["at"], stream, num_streams, seed=seed, workers=workers, ahead=ahead, skip_rows=skip
    )
    return [(rows, None if table is None else table["at"][0].as_py()) for rows, table in row_groups]


@settings(max_examples=10, deadline=None)
@given(workers=st.integers(2, 8), seed=st.none() | st.integers(0, 9), num_streams=st.integers(1, 3))
def test_the_order_is_that_of_the_seed_however_many_are_fetched_at_once(files, workers, seed, num_streams):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            streams, "read_row_groups", lambda *place: time.sleep(random.random() / 500) or read_row_groups(*place)
        )
        for stream in range(num_streams):
            found = read(files, seed, workers, workers + 2, stream, num_streams)
            assert found == read(files, seed, 1, 1, stream, num_streams)
            assert sorted(at for _, at in found) == list(range(stream, len(ROWS), num_streams))
            assert all(rows == ROWS[at] for rows, at in found)


@pytest.mark.parametrize("skip", [0, 1, 5, 17, sum(ROWS)])
def test_row_groups_of_steps_that_are_over_are_not_read(files, skip, monkeypatch):
    whole, fetched = read(files), []
    monkeypatch.setattr(streams, "read_row_groups", lambda *place: fetched.append(place) or read_row_groups(*place))
    found = read(files, skip=skip)
    assert [rows for rows, _ in found] == [rows for rows, _ in whole]
    over = 0
    while over < len(whole) and sum(rows for rows, _ in whole[: over + 1]) <= skip:
        over += 1
    assert [at for _, at in found] == [None] * over + [at for _, at in whole[over:]]
    assert len(fetched) == len(ROWS) - over


def test_no_more_than_allowed_are_fetched_ahead_and_leaving_ends_the_threads(files, monkeypatch):
    fetched = []
    monkeypatch.setattr(streams, "read_row_groups", lambda *place: fetched.append(place) or read_row_groups(*place))
    before = threading.active_count()
    row_groups = read_stream(files, ROWS, ["at"], 0, 1, seed=None, workers=4, ahead=5)
    for taken in range(1, 4):
        next(row_groups)
        end = time.monotonic() + 10
        while len(fetched) < taken + 5 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(fetched) == taken + 5
    row_groups.close()
    # Threads of earlier tests may have ended meanwhile.
    assert threading.active_count() <= before


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), pa.ArrowInvalid("Couldn't deserialize thrift")])
def test_a_row_group_that_cannot_be_read_is_named_with_the_next_step(files, monkeypatch, capfd, error):
    def fail(file: str, columns, groups: list[int]) -> pa.Table:
        if (file, groups) == (files[0], [2]):
            raise error
        return read_row_groups(file, columns, groups)

    monkeypatch.setattr(streams, "read_row_groups", fail)
    with pytest.raises(InputError, match=r"row group 2 of .*0.parquet cannot be read .*: check .* with --resume"):
        read(files, workers=3)
    assert "Traceback" not in capfd.readouterr().err


def test_a_bug_of_the_reader_keeps_its_type(files, monkeypatch):
    monkeypatch.setattr(streams, "read_row_groups", lambda *place: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        read(files)


def test_only_the_ranges_of_the_wanted_columns_are_fetched(tmp_path):
    file = tmp_path / "wide.parquet"
    columns = {"a": ["x"] * 4, "big": [b"y" * 300_000] * 4, "b": [[1.0, 2.0]] * 4, "c": [1] * 4}
    pq.write_table(pa.table(columns), file, compression="NONE", use_dictionary=False)
    content, footer = file.read_bytes(), footer_of(str(file))
    ranges = _ranges(footer.metadata.row_group(0), ["a", "b", "c"])
    assert len(ranges) == 2 and sum(stop - start for start, stop in ranges) < 1000
    parts = Parts(footer.size, {start: content[start:stop] for start, stop in ranges})
    with pq.ParquetFile(pa.PythonFile(parts, "r"), metadata=footer.metadata) as parquet:
        assert parquet.read_row_group(0, ["a", "b", "c"]).equals(pq.read_table(file, columns=["a", "b", "c"]))
        with pytest.raises(OSError, match="were not fetched"):
            parquet.read_row_group(0, ["big"])
