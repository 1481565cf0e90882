"""The version of the table that a workspace's card names."""

import shutil
from dataclasses import replace

import pytest

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.version import TableVersion, keep_card
from tests.etl.tables import add, film, run


@pytest.mark.parametrize("table", ["", ".", "tables", "tables/of 2017"])
def test_tables_below_the_workspace_move_along(copied_table, tmp_path, table):
    old = copied_table(tmp_path / "old")
    card = Card.read(old.card)
    if table:
        (old.root / table).mkdir(parents=True, exist_ok=True)
        if table != ".":
            old.shards.rename(old.root / table / "shards")
        card = replace(card, table=str(old.root / table))
    keep_card(card, old)
    copy = Workspace.at(str(shutil.copytree(old.root, tmp_path / "copy")))
    for workspace in (old, copy):
        files = TableVersion.of(workspace).files("train")
        assert files and all(file.startswith(f"{workspace.root}/") for file in files)


@pytest.mark.parametrize("table", ["/data/tables", "s3://bucket/tables"])
def test_tables_elsewhere_stay_there(tmp_path, copied_table, table):
    workspace = copied_table(tmp_path / "workspace")
    keep_card(replace(Card.read(workspace.card), table=table), workspace)
    assert TableVersion.of(workspace).shards == f"{table}/shards"


def test_an_old_version_of_a_table_that_was_made_anew_is_refused(nih_folder, tmp_path):
    workspace = Workspace.at(str(tmp_path))
    # The copy of the card is older than the table, as after a kill between the commit and the copy.
    old = run(nih_folder, workspace).card
    add(nih_folder, 31, 0, film(1))
    newer = run(nih_folder, workspace).card
    newer.write(workspace.card)
    assert TableVersion.of(workspace).trained_on(old.delta_table_id, 0, "the model").card.delta_version == 0
    shutil.rmtree(workspace.shards)
    shutil.rmtree(workspace.quarantine)
    run(nih_folder, workspace)
    with pytest.raises(InputError, match="made anew since the model was trained"):
        TableVersion.of(workspace).trained_on(old.delta_table_id, 0, "the model")


def test_a_workspace_without_a_card_takes_the_newest_version_of_the_table_elsewhere(nih_folder, tmp_path):
    tables = Workspace.at(str(tmp_path / "tables"))
    run(nih_folder, tables)
    add(nih_folder, 31, 0, film(1))
    newest = run(nih_folder, tables).card
    empty = Workspace.at(str(tmp_path / "empty"))
    found = TableVersion.of(empty, elsewhere=str(tables.root))
    assert (found.card.delta_version, found.card.sha256) == (1, newest.sha256)
    assert found.card.table == str(tables.root)
    assert found.files("train") == TableVersion(str(tables.shards), newest).files("train")
    assert TableVersion.of(empty, 0, str(tables.root)).card.delta_version == 0
    assert not empty.root.exists()
    with pytest.raises(InputError, match="no version 2"):
        TableVersion.of(empty, 2, str(tables.root))
    with pytest.raises(InputError, match=r"no dataset card .* run `spark-submit"):
        TableVersion.of(empty)
    with pytest.raises(InputError, match=r"no table of this program's version at .*nothing/shards: run `spark-submit"):
        TableVersion.of(empty, elsewhere=str(tmp_path / "nothing"))
    newest.write(tables.card)
    assert TableVersion.of(tables, elsewhere=str(tables.root)).card == newest
    with pytest.raises(InputError, match="etl.table is .*nothing, but .*card.json names the table .*tables/shards"):
        TableVersion.of(tables, elsewhere=str(tmp_path / "nothing"))
