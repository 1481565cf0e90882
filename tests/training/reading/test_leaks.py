import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch
from deltalake import write_deltalake

from conf.errors import InputError
from conf.settings import Settings, Training
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from training.loop.task import Task
from training.network.build import build_model
from training.reading.leaks import seen_in_test
from training.start.prepare import load_starting_weights


@pytest.fixture(scope="module")
def moved(small_table, tmp_path_factory):
    """A table whose second version moves two patients of the training split to the test split: workspace and card."""
    workspace, card, _ = small_table
    copy = Workspace.at(str(shutil.copytree(workspace.root, tmp_path_factory.mktemp("moved") / "workspace")))
    rows = ds.dataset(copy.shards, partitioning="hive").to_table().to_pandas()
    # A patient has ten images.
    rows.loc[rows.patient_id.isin(["train_00", "train_01"]), "split"] = "test"
    write_deltalake(copy.shards, pa.Table.from_pandas(rows, preserve_index=False), mode="overwrite")
    return copy, replace(card, delta_version=1)


def lineage(card, version: int) -> dict:
    return {"source": "ours", "delta_table_id": card.delta_table_id, "delta_version": version}


def test_patients_who_were_trained_on_are_found_in_the_test_split(moved):
    workspace, card = moved
    table = TableVersion(str(workspace.shards), card)
    foreign = {"source": "imagenet"}
    assert seen_in_test(table, [foreign, lineage(card, 0)]) == {"train_00", "train_01"}
    assert seen_in_test(table, [foreign, lineage(card, 1)]) == set()
    assert seen_in_test(table, [lineage(card, 0) | {"delta_table_id": "another"}]) == set()
    assert seen_in_test(table, []) == set()
    with pytest.raises(InputError, match="version 9"):
        seen_in_test(table, [lineage(card, 9)])


@pytest.mark.parametrize("version", [0, 1, 9])
def test_weights_that_have_seen_the_test_split_are_refused(version, moved, tmp_path, capsys):
    workspace, card = moved
    model = build_model("simple_cnn", 2, 100, 50)
    content = {"weights": model.state_dict(), "model": "simple_cnn", "findings": card.findings}
    torch.save(content | lineage(card, version), tmp_path / "first.pt")
    training = Training(model="simple_cnn", weights=str(tmp_path / "first.pt"))
    settings = Settings(workspace=str(workspace.root), training=training)
    table = TableVersion(str(workspace.shards), card)
    task = Task(settings, workspace, table, None, None, None, model)
    if version == 0:
        with pytest.raises(InputError, match="were trained on 2 patients of today's test split, such as train_00"):
            load_starting_weights(task)
        return
    (ancestor,) = load_starting_weights(task)
    assert ancestor["delta_version"] == version
    assert ("Cannot tell" in capsys.readouterr().out) == (version == 9)
