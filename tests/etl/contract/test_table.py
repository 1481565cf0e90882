"""Tables that cannot be opened end a command with a message, whatever deltalake raises."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.table import read_card, read_identity
from inference.batch.scores import Run, known_images

RUN = Run("chexscale", 1, "int8", "hash", "source", 0, datetime(2017, 1, 1, tzinfo=UTC))
OPENERS = (read_card, read_identity, lambda table: known_images(table, RUN, []))


@pytest.mark.parametrize("endpoint", ["", "not a url", "http://[1"])
def test_a_wrong_address_of_the_store_is_reported(endpoint, monkeypatch):
    """deltalake panics, and reports that as an error of its own."""
    for name, value in {
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "REGION": "c",
        "ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for opener in OPENERS:
        with pytest.raises(InputError, match=r"s3://bucket/x cannot be reached \(.*AWS_ENDPOINT_URL"):
            opener("s3://bucket/x")


def test_a_damaged_log_is_reported(tmp_path):
    table = tmp_path / "table"
    write_deltalake(table, pa.table({"a": [1]}))
    (table / "_delta_log" / f"{0:020}.json").write_text("{")
    for opener in OPENERS:
        with pytest.raises(InputError, match=f"the Delta table at {table} cannot be opened .*restore its _delta_log"):
            opener(str(table))


def test_a_table_that_is_a_link_to_another_disk_is_checked_too(tmp_path):
    (tmp_path / "disk [2]").mkdir()
    workspace = Workspace.at(str(tmp_path / "workspace"))
    workspace.root.mkdir()
    workspace.shards.symlink_to(tmp_path / "disk [2]")
    with pytest.raises(InputError, match=r"workspace is .*shards', a link to .*disk \[2\]', whose path has \[ \]"):
        workspace.tables("")
    workspace.shards.unlink()
    (tmp_path / "disk 2").mkdir()
    workspace.shards.symlink_to(tmp_path / "disk 2")
    assert workspace.tables("")[0] == str(workspace.shards)
