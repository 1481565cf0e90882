import pandas as pd
import pytest

from conf.errors import InputError
from conf.settings import Etl
from conf.workspace import Workspace
from etl.contract.table import read_card, read_committed
from etl.writing.housekeeping import maintain
from tests.conftest import InlineWorkers, files_of
from tests.etl.tables import add, film, rows_of, run


def on_disk(workspace: Workspace) -> set[str]:
    return {str(file) for file in workspace.shards.rglob("*.parquet") if file.parent.name != "_delta_log"}


@pytest.fixture
def grown(nih_folder, tmp_path):
    """A workspace with five versions; the newest has many small files, and a killed run has left one more."""
    workspace = Workspace.at(str(tmp_path / "workspace"))
    run(nih_folder, workspace)
    for patient in (30, 31, 33, 34):
        if patient == 33:
            nih_folder.put("00000007_000.png", b"")
        add(nih_folder, patient, 0, film(patient))
        if patient == 31:
            (nih_folder.root / "images" / "00000005_000.png").unlink()
        run(nih_folder, workspace)
    (workspace.shards / "split=train" / "left.parquet").write_bytes(b"left by a kill")
    return nih_folder, workspace


def keep_house(workspace: Workspace, keep=(), hours=0):
    return maintain(workspace.tables(""), Etl(), set(keep), hours, InlineWorkers())


def test_small_files_are_joined_without_a_change_of_the_rows(grown):
    folder, workspace = grown
    before = rows_of(workspace, read_card(str(workspace.shards)))
    done = keep_house(workspace, hours=24)
    assert done.joined > done.into > 0
    assert done.card.delta_version == 5
    pd.testing.assert_frame_equal(rows_of(workspace, done.card), before)
    assert set(run(folder, workspace).counts.values()) == {0}
    again = keep_house(workspace, hours=24)
    assert (again.joined, again.card) == (0, done.card)


def test_only_versions_that_are_kept_stay_readable(grown):
    _, workspace = grown
    first = rows_of(workspace, read_card(str(workspace.shards)))
    versions = {version: files_of(workspace, version) for version in (0, 1)}
    done = keep_house(workspace, keep=[0])
    assert on_disk(workspace) == versions[0] | files_of(workspace, done.card.delta_version)
    assert not versions[1] <= on_disk(workspace)
    pd.testing.assert_frame_equal(rows_of(workspace, done.card), first)


def test_the_quarantine_of_kept_versions_stays(grown):
    _, workspace = grown
    tables = workspace.tables("")
    keep_house(workspace, keep=[3])
    for version in (3, None):
        assert len(read_committed(*tables, read_card(tables[0], version)).quarantine) == 1
    fourth = read_card(tables[0], 3)
    keep_house(workspace)
    with pytest.raises(InputError, match="cannot be read"):
        read_committed(*tables, fourth)


def test_files_of_the_last_hours_stay(grown):
    _, workspace = grown
    before = on_disk(workspace)
    keep_house(workspace, hours=1)
    assert before <= on_disk(workspace)


def test_no_table_and_no_such_version(grown, tmp_path):
    with pytest.raises(InputError, match="no Delta table"):
        keep_house(Workspace.at(str(tmp_path / "empty")))
    with pytest.raises(InputError, match="has no version 99, its newest is 4"):
        keep_house(grown[1], keep=[99])
