import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import WriterProperties, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from etl.contract.row_groups import footer_of
from etl.contract.version import TableVersion
from tests.conftest import SIZE_PX
from training.reading.batches import Batch, join, read_batches, read_steps
from training.reading.plan import Plan, Split
from training.reading.readers import open_split

ROW_GROUPS = st.lists(st.integers(1, 40), min_size=1, max_size=20)


@given(ROW_GROUPS, st.integers(1, 8), st.integers(1, 16))
def test_every_rank_takes_the_same_steps_and_the_ranks_together_all_rows(row_groups, num_ranks, batch_size):
    plan = Plan(Split("train", [], row_groups, SIZE_PX), batch_size, num_ranks, num_ranks)
    plans = [plan.sizes(stream) for stream in range(num_ranks)]
    assert len({len(plan) for plan in plans}) == 1
    assert sum(map(sum, plans)) == sum(row_groups)
    assert max(map(max, plans)) <= batch_size
    for plan in plans:
        assert max(plan) - min(plan) <= 1


# The examples share the table, and a cache that fills.
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num_ranks=st.integers(1, 9), batch_size=st.integers(1, 30), seed=st.none() | st.integers(0, 3))
def test_every_row_is_read_once_by_one_rank(small_table, opened, num_ranks, batch_size, seed):
    workspace, card, rows = small_table
    split = opened(workspace.shards, card, "train")
    seen = []
    for rank in range(num_ranks):
        for batch in read_batches(split, batch_size, rank, num_ranks, seed):
            assert len(batch.pixels) == len(batch.labels) == len(batch.image_ids) <= batch_size
            for image_id, pixels, labels in zip(batch.image_ids, batch.pixels, batch.labels, strict=True):
                assert pixels.numpy().tobytes() == rows[str(image_id)]["pixels"]
                np.testing.assert_array_equal(labels.numpy(), rows[str(image_id)]["findings"])
                seen.append(str(image_id))
    assert sorted(seen) == sorted(name for name, row in rows.items() if row["split"] == "train")


@pytest.fixture(scope="module")
def table_of_several_files(small_table, tmp_path_factory):
    """The training rows of the small table in four files, most with a last row group of less than 5 rows."""
    workspace, card, _ = small_table
    (file,) = open_split(TableVersion(str(workspace.shards), card), "train", SIZE_PX).files
    stored = pq.ParquetFile(file).read()
    stored = stored.append_column("split", pa.array(["train"] * len(stored)))
    shards, start = tmp_path_factory.mktemp("several files") / "shards", 0
    for rows in (7, 12, 21, 13):
        properties = WriterProperties(max_row_group_size=5)
        part = stored.slice(start, rows)
        write_deltalake(shards, part, mode="append", partition_by=["split"], writer_properties=properties)
        start += rows
    return shards, replace(card, delta_version=3), stored["image_id"].to_pylist()


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("seed", [None, 1])
def test_the_plan_holds_over_several_files(table_of_several_files, opened, num_ranks, seed):
    shards, card, image_ids = table_of_several_files
    split = opened(shards, card, "train")
    assert len(split.files) == 4
    assert sorted(split.row_groups) == [1, 2, 2, 3] + [5] * 9
    seen = []
    for rank in range(num_ranks):
        batches = [batch.image_ids for batch in read_batches(split, 4, rank, num_ranks, seed)]
        assert [len(batch) for batch in batches] == Plan(split, 4, num_ranks, num_ranks).sizes(rank)
        seen += [str(image_id) for batch in batches for image_id in batch]
    assert sorted(seen) == sorted(image_ids)


def test_a_file_that_is_gone_or_cut_off_is_named(table_of_several_files, tmp_path):
    shards, card, _ = table_of_several_files
    shutil.copytree(shards, tmp_path / "shards")
    file = Path(open_split(TableVersion(str(tmp_path / "shards"), card), "train", SIZE_PX).files[1])
    message = rf"{file.name}, part of version 3 of .*shards, cannot be read .*: run the ETL again"
    split = open_split(TableVersion(str(tmp_path / "shards"), card), "train", SIZE_PX)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 5])
    with pytest.raises(InputError, match=rf"row group . of .*{file.name} cannot be read .*with --resume"):
        list(read_batches(split, 7))
    file.write_bytes(content[:-100])
    footer_of.cache_clear()
    with pytest.raises(InputError, match=message):
        open_split(TableVersion(str(tmp_path / "shards"), card), "train", SIZE_PX)
    file.unlink()
    footer_of.cache_clear()
    with pytest.raises(InputError, match=message):
        open_split(TableVersion(str(tmp_path / "shards"), card), "train", SIZE_PX)


def test_a_seed_repeats_its_order_and_another_changes_it(small_table, opened):
    workspace, card, _ = small_table
    split = opened(workspace.shards, card, "train")

    def order(seed):
        return [str(name) for batch in read_batches(split, 7, shuffle_seed=seed) for name in batch.image_ids]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(None) == order(None)


def test_lost_rows_are_noticed(small_table):
    workspace, card, _ = small_table
    split = open_split(TableVersion(str(workspace.shards), card), "train", SIZE_PX)
    promised = replace(split, row_groups=[*split.row_groups[:-1], split.row_groups[-1] + 1])
    with pytest.raises(RuntimeError, match="brought 53 rows of the train split, the footers say 54"):
        list(read_batches(promised, 7))


def test_an_unknown_label_arrives_as_nan(small_table):
    workspace, card, _ = small_table
    split = open_split(TableVersion(str(workspace.shards), card), "val", SIZE_PX)
    labels = torch.cat([batch.labels for batch in read_batches(split, 100)])
    assert labels.isnan().any()


def test_a_size_that_is_not_stored_is_refused(small_table):
    workspace, card, _ = small_table
    with pytest.raises(InputError, match=r"training.size_px is 999, .* holds \[32\]"):
        open_split(TableVersion(str(workspace.shards), card), "train", 999)


def test_the_smallest_step_is_that_of_the_rank_with_the_fewest_rows():
    assert Plan(Split("train", [], [16, 3], SIZE_PX), 8, 2, 2).smallest_step == 1
    assert Plan(Split("train", [], [16, 3], SIZE_PX), 8, 1, 1).smallest_step == 6


@pytest.mark.parametrize(
    ("row_groups", "batch_size", "ranks", "streams", "message"),
    [
        ([8, 8], 4, 3, 0, "3 ranks and 2 row groups"),
        ([1, 1], 1, 3, 0, "3 ranks, and the train split has 2 images: start at most 2 ranks"),
        ([8, 8], 4, 1, 3, r"4\) \* ranks \(1\) is not a multiple of training.streams \(3\)"),
        ([8, 8], 3, 1, 3, "3 streams and 2 row groups"),
        ([8, 8, 8], 3, 2, 3, r"streams \(3\) to be a multiple of the ranks \(2\)"),
        ([16, 1], 4, 2, 0, "rank 1 of 2 has 1 row for 4 steps"),
    ],
)
def test_an_impossible_plan_is_refused(row_groups, batch_size, ranks, streams, message):
    with pytest.raises(InputError, match=message):
        Plan.of(Split("train", [], row_groups, SIZE_PX), batch_size, ranks, streams)


def steps_of(split: Split, num_ranks: int, images_per_step: int, streams: int, start: int = 0) -> list[list[str]]:
    """Names of the images of each step, in the order of the ranks."""
    plan = Plan.of(split, images_per_step // num_ranks, num_ranks, streams)
    readers = [read_steps(plan, rank, 1, start) for rank in range(num_ranks)]
    steps = zip(*readers, strict=True)
    return [[str(n) for batches in step for batch in batches for n in batch.image_ids] for step in steps]


def test_with_the_same_streams_a_step_has_the_same_images_on_any_number_of_ranks(small_table, opened):
    workspace, card, rows = small_table
    split = opened(workspace.shards, card, "train")
    alone = steps_of(split, 1, 8, streams=4)
    assert alone == steps_of(split, 2, 8, streams=4) == steps_of(split, 4, 8, streams=4)
    assert sorted(name for step in alone for name in step) == sorted(n for n in rows if n.startswith("train"))
    assert alone != steps_of(split, 1, 8, streams=2)


@pytest.mark.parametrize("start", [0, 1, 4])
def test_an_epoch_can_resume_in_its_middle(small_table, opened, start):
    workspace, card, _ = small_table
    split = opened(workspace.shards, card, "train")
    assert steps_of(split, 2, 8, 4, start) == steps_of(split, 2, 8, 4)[start:]


def test_joining_starts_no_openmp_threads(monkeypatch):
    # If a second thread starts OpenMP threads, OpenMP puts the training's own to sleep.
    monkeypatch.setattr(torch, "cat", None)
    parts = [Batch(np.array(["a"]), torch.full((1, 2, 2), i), torch.zeros(1, 3), torch.zeros(1, 0)) for i in (1, 2)]
    whole = join(parts)
    assert whole.pixels[:, 0, 0].tolist() == [1, 2]
    assert (whole.image_ids.tolist(), whole.labels.shape, whole.attributes.shape) == (["a", "a"], (2, 3), (2, 0))
