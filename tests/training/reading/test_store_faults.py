"""What a store does wrong for a while is tried again; what stays wrong ends in one message, with the next step."""

import re
import time
from typing import get_args

import pytest

from conf.errors import InputError
from etl.contract import storage
from etl.contract.row_groups import footer_of
from etl.contract.version import TableVersion
from jobs.benchmarks.stores import link
from tests.conftest import SIZE_PX
from training.reading import readers
from training.reading.batches import read_batches
from training.reading.plan import Split
from training.reading.readers import open_split

# Keys that are refused are so for good.
FAULTS = tuple(fault for fault in get_args(link.Fault) if fault != "forbidden")


@pytest.fixture
def split(small_table, store_link, to_store, monkeypatch) -> Split:
    """The training split of the small table in a store, through the link."""
    workspace, card, _ = small_table
    monkeypatch.setattr(storage, "PATIENCE_S", 8)
    return open_split(TableVersion(to_store(workspace.shards), card), "train", SIZE_PX)


def read(split: Split) -> list[str]:
    return [str(name) for batch in read_batches(split, 8, shuffle_seed=1) for name in batch.image_ids]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "trickle"])
def test_what_fails_a_few_times_is_tried_again(small_table, split, store_link, fault, capfd):
    workspace, card, _ = small_table
    store_link.fail(fault, 4)
    assert read(split) == read(open_split(TableVersion(str(workspace.shards), card), "train", SIZE_PX))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("fault", FAULTS)
def test_what_keeps_failing_is_said_with_place_time_and_next_step(split, store_link, fault, capfd, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE_S", 1)
    store_link.fail(fault)
    started = time.monotonic()
    with pytest.raises(InputError) as raised:
        read(split)
    assert time.monotonic() - started < 10
    message = str(raised.value)
    assert re.search(
        r"row group \d+ of s3://\S+\.parquet cannot be read \(.+; tried for \d+ s\): check the store", message
    )
    assert "AWS_ENDPOINT_URL" in message and "--resume, which continues from the last saved state" in message
    assert "Traceback" not in capfd.readouterr().err


def test_a_slow_answer_that_arrives_in_time_is_no_fault(split, store_link):
    store_link.fail("trickle", 1)
    assert len(read(split)) == 53


@pytest.mark.parametrize("fault", ["reset", "slow down", "silence", "drop"])
def test_footers_that_cannot_be_reached_are_no_reason_to_run_the_etl_again(
    split, small_table, store_link, fault, monkeypatch
):
    _, card, _ = small_table
    monkeypatch.setattr(storage, "PATIENCE_S", 1)
    footer_of.cache_clear()
    store_link.fail(fault)
    shards = split.files[0].partition("/split=")[0]
    with pytest.raises(
        InputError, match=r"s3://\S+ cannot be reached \(.+\): check the address, and what the env"
    ) as raised:
        open_split(TableVersion(shards, card), "train", SIZE_PX)
    assert "run the ETL again" not in str(raised.value)


def test_keys_that_end_in_mid_epoch_are_said(split, store_link, s3_folder, monkeypatch):
    # Nothing is fetched ahead.
    monkeypatch.setattr(readers, "STORE_WORKERS", 1)
    monkeypatch.setattr(readers, "WAITING", 0)
    batches = read_batches(split, 5, shuffle_seed=1)
    next(batches)
    with link.s3_server(link.find_server(), s3_folder, secret="another") as other:
        store_link.connect(other)
        with pytest.raises(
            InputError, match=r"cannot be read \(.*(signature|Forbidden|403).*\): check the store, and what the"
        ):
            list(batches)


def test_a_store_that_is_gone_is_said_and_one_that_is_back_goes_on(split, store_link, s3_folder, s3_server):
    store_link.connect(9)
    with pytest.raises(InputError, match=r"cannot be read \(.*; tried for \d+ s\)"):
        read(split)
    store_link.connect(int(s3_server.rpartition(":")[2]))
    assert len(read(split)) == 53
