"""A table of several sources is trained on: what a source does not label adds nothing to the loss or the measures."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from conf.workspace import Workspace
from etl.contract.version import TableVersion, keep_card
from tests.conftest import SIZE_PX
from tests.etl.several_sources import Sources, run
from tests.etl.tables import rows_of
from tests.training.commands import train_here
from training.reading.batches import read_batches
from training.reading.readers import open_split

FINDINGS = ["Effusion", "Hernia", "Rib Fracture"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, new_store) -> Workspace:
    """A table of 24 films of NIH, which does not label rib fractures, and 18 of a hospital, which labels no hernias."""
    folder = tmp_path_factory.mktemp("several")
    sources, workspace = Sources(folder), Workspace.at(str(folder / "workspace"))
    for row in (0, 2, 6, 8, 12, 16):
        sources.nih.rows[row][1] = "Hernia"
    sources.nih.write_lists()
    new_store(workspace)
    keep_card(run(sources.settings(findings=FINDINGS), workspace).card, workspace)
    return workspace


def test_the_labels_of_both_sources_reach_the_batches(workspace):
    card = TableVersion.of(workspace).card
    rows, seen = rows_of(workspace, card), set()
    split = open_split(TableVersion(str(workspace.shards), card), "train", SIZE_PX)
    for batch in read_batches(split, 7):
        for image, labels in zip(batch.image_ids, batch.labels.numpy(), strict=True):
            np.testing.assert_array_equal(labels, rows.findings[image])
            source = rows.source[image]
            assert np.isnan(labels[FINDINGS.index("Rib Fracture" if source == "nih" else "Hernia")])
            assert not np.isnan(labels[FINDINGS.index("Effusion")])
            seen.add(source)
    assert seen == {"nih", "hospital"}


@pytest.mark.usefixtures("undrawn")
def test_a_training_measures_each_finding_on_the_films_that_label_it(workspace):
    train_here(workspace, epochs=1)
    evaluation = json.loads(workspace.evaluation.read_text())
    logits = pd.read_parquet(workspace.predictions).set_index("image_id").logits
    rows = rows_of(workspace, TableVersion.of(workspace).card)
    test = rows[rows.split == "test"]
    labels = dict(zip(FINDINGS, np.stack(test.findings).T, strict=True))
    for finding, sources in (("Effusion", {"nih", "hospital"}), ("Hernia", {"nih"}), ("Rib Fracture", {"hospital"})):
        known = test.index[~np.isnan(labels[finding])]
        assert set(test.source[known]) == sources
        present = labels[finding][~np.isnan(labels[finding])]
        area = roc_auc_score(present, np.stack(logits[known])[:, FINDINGS.index(finding)])
        groups = [row for row in evaluation["subgroups"] if (row["attribute"], row["finding"]) == ("source", finding)]
        assert {row["group"] for row in groups if row["images"]} == sources
        assert evaluation["splits"]["test"]["auroc"][finding]["value"] == pytest.approx(area)
