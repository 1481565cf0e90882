"""Old versions stay readable, by Spark too, which otherwise refuses what is older than a week."""

import json
import os
import re
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from conf.settings import Etl
from conf.workspace import Workspace
from etl.contract.delta import KEEP_HISTORY, keep_history
from etl.contract.table import read_card
from etl.writing.housekeeping import maintain
from inference.batch.scores import Run, append_scores
from inference.batch.scoring import answer_schema
from tests.conftest import ODD, InlineWorkers, NihFolder
from tests.etl.tables import add, film, rows_of, run

RUN = Run("chexscale", 1, "int8", "hash", "source", 0, datetime(2017, 1, 1, tzinfo=UTC))


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    # With every character that a workspace may have: Spark must read there.
    return Workspace.at(str(tmp_path / ODD))


def age(folder: Path, days: int) -> None:
    """Dates all commits of a table back. Spark takes a commit's time from its file."""
    for index, file in enumerate(sorted((folder / "_delta_log").glob("*.json"))):
        then = time.time() - days * 86400 + index
        os.utime(file, (then, then))


def as_before(folder: Path) -> None:
    """Takes the properties out of the log, as in tables that an older release has made."""
    for file in (folder / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in file.read_text().splitlines()]
        for action in actions:
            action.get("metaData", {})["configuration"] = {}
        file.write_text("\n".join(map(json.dumps, actions)))
    assert not properties(folder)


def properties(folder: Path) -> dict:
    return DeltaTable(folder).metadata().configuration


def score(output: Path, image_id: str) -> None:
    row = {"image_id": [image_id], "image_version": ["1"]}
    columns = [row.get(field.name, pa.nulls(1, field.type)) for field in answer_schema([])]
    append_scores(str(output), pa.table(columns, schema=answer_schema([])), RUN)


def grow(nih_folder, workspace: Workspace, patients: list[int]) -> None:
    """Makes a version of each table per patient; 0 adds none, and the image of patient 33 is bad."""
    for patient in patients:
        if patient:
            add(nih_folder, patient, 0, b"" if patient == 33 else film(patient))
        run(nih_folder, workspace)
        score(workspace.scores, str(patient))


def rows_by_spark(spark, folder: Path, version: int) -> int:
    return spark.read.format("delta").option("versionAsOf", version).load(str(folder)).count()


@pytest.mark.spark
def test_spark_reads_versions_that_are_older_than_a_week(spark, nih_folder, workspace):
    grow(nih_folder, workspace, [0, 33])
    for folder, version, expected in (
        (workspace.shards, 0, 48),
        (workspace.quarantine, 0, 0),
        (workspace.scores, 0, 1),
    ):
        age(folder, days=400)
        assert rows_by_spark(spark, folder, version) == expected


@pytest.mark.spark
def test_spark_reads_old_versions_of_tables_that_an_older_release_has_made(spark, nih_folder, workspace):
    grow(nih_folder, workspace, [0, 30])
    for folder in (workspace.shards, workspace.quarantine, workspace.scores):
        as_before(folder)
        age(folder, days=400)
    run(nih_folder, workspace)
    keep_history(str(workspace.scores))
    assert [rows_by_spark(spark, folder, 0) for folder in (workspace.shards, workspace.scores)] == [48, 1]


def test_a_run_without_changes_gives_an_older_table_the_properties_and_no_other_rows(nih_folder, workspace):
    before = run(nih_folder, workspace)
    rows = rows_of(workspace, before.card)
    for folder in (workspace.shards, workspace.quarantine):
        as_before(folder)
    for _ in range(2):
        again = run(nih_folder, workspace)
        assert (again.committed, again.card) == (False, before.card)
        for folder in (workspace.shards, workspace.quarantine):
            assert properties(folder) == KEEP_HISTORY
            assert [commit["operation"] for commit in DeltaTable(folder).history()][:-1] == ["SET TBLPROPERTIES"]
    for version in (None, 0, 1):
        assert read_card(str(workspace.shards), version) == before.card
    assert rows_of(workspace, before.card).equals(rows)
    add(nih_folder, 30, 0, film(30))
    assert run(nih_folder, workspace).card.delta_version == 2


def test_a_run_with_changes_gives_an_older_table_the_properties(nih_folder, workspace):
    run(nih_folder, workspace)
    as_before(workspace.shards)
    add(nih_folder, 30, 0, film(30))
    changed = run(nih_folder, workspace)
    assert changed.counts["new"] == 1
    assert (properties(workspace.shards), changed.card.delta_version) == (KEEP_HISTORY, 2)
    # Also if the table is replaced.
    as_before(workspace.shards)
    run(nih_folder, workspace, sizes_px=[32])
    assert properties(workspace.shards) == KEEP_HISTORY


def test_maintenance_gives_an_older_table_the_properties_and_still_removes_files(nih_folder, workspace):
    for patient in (0, 30, 31, 34):
        if patient:
            add(nih_folder, patient, 0, film(patient))
        run(nih_folder, workspace)
    for folder in (workspace.shards, workspace.quarantine):
        as_before(folder)
    done = maintain(workspace.tables(""), Etl(), set(), 0, InlineWorkers())
    assert done.removed > 0
    for folder in (workspace.shards, workspace.quarantine):
        assert properties(folder) == KEEP_HISTORY
    assert read_card(str(workspace.shards)) == done.card
    assert len(rows_of(workspace, done.card)) == 51


def test_what_its_owner_has_set_stays(workspace):
    own = {"delta.deletedFileRetentionDuration": "interval 30 days"}
    write_deltalake(workspace.shards, pa.table({"a": [1]}), configuration=own)
    keep_history(str(workspace.shards))
    assert properties(workspace.shards) == KEEP_HISTORY | own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_table_that_may_only_be_read_is_named_and_the_run_goes_on(capsys):
    # Not in pytest's own folder, which only root may enter.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder, workspace = NihFolder(Path(place) / "nih"), Workspace.at(f"{place}/workspace")
        before = run(folder, workspace)
        as_before(workspace.shards)
        os.seteuid(65534)
        try:
            again = run(folder, workspace)
        finally:
            os.seteuid(0)
        assert (again.committed, again.card) == (False, before.card)
        said = capsys.readouterr().err
        assert re.search(f"no version of {workspace.shards} that is older than a week.*Permission denied", said)
        run(folder, workspace)
        assert properties(workspace.shards) == KEEP_HISTORY


def test_a_missing_table_is_not_made(workspace):
    keep_history(str(workspace.shards))
    assert not workspace.root.exists()
