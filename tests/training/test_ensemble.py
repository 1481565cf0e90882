"""The command on members made in memory, of a small table."""

import json
import shutil
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest

from conf.errors import InputError
from conf.settings import Ensemble, Settings
from conf.workspace import Workspace
from conf.writing import write_json
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from tests.in_process import run_here
from tests.training.commands import PROJECT
from training.ensembles.members import read_member, read_members, table_of
from training.ensembles.run import combine
from training.measures.metrics import auroc_per_finding
from training.measures.predictions import Predictions
from training.record.evaluation import FIGURES, evaluate
from training.record.store import use_store


@pytest.fixture(scope="module")
def trained(small_table, tmp_path_factory, undrawn):
    """Three workspaces as trainings on one table leave them; the third has another weight of positives."""
    source, card, rows = small_table
    folder = tmp_path_factory.mktemp("members")
    for seed in range(3):
        rng, splits = np.random.default_rng(seed), []
        for name in ("val", "test"):
            ids = rng.permutation([image for image, row in rows.items() if row["split"] == name])
            labels = np.stack([rows[image]["findings"] for image in ids])
            splits.append(Predictions(ids, labels, rng.normal(size=labels.shape).astype(np.float32) + labels))
            splits[-1].logits[np.isnan(labels)] = 0.5
        workspace = Workspace.at(str(folder / "abc"[seed]))
        replace(card, table=str(source.root)).write(workspace.card)
        evaluate(workspace, TableVersion.of(workspace), *splits, np.array([1.0, 1 + 3 * seed]), 0)
    return folder


def card_at(workspace: Workspace) -> Card:
    return Card.read(workspace.card)


@pytest.fixture
def members(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return [Workspace.at(str(tmp_path / name)) for name in "abc"]


def test_a_members_calibrated_logits_are_those_of_its_report(members):
    member = read_member(members[2])
    table = pd.read_parquet(members[2].predictions).set_index("image_id")
    image = member.splits["test"].image_ids[3]
    report = json.loads(members[2].evaluation.read_text())
    shift, temperature = report["logit_shifts"]["Coin"], report["temperatures"]["Coin"]
    assert shift == pytest.approx(-np.log(7))
    expected = (table.loc[image, "logits"][1] + shift) / temperature
    assert member.splits["test"].logits[3, 1] == pytest.approx(expected)


def combined(workspace: Workspace, members, method="weights"):
    ensemble = Ensemble([str(member.root) for member in members], method)
    read = read_members(ensemble.members, workspace)
    return combine(Settings(str(workspace.root), ensemble=ensemble), workspace, table_of(read[0]), read)


def test_the_report_has_each_members_weights_auroc_and_what_the_ensemble_gains(members, tmp_path):
    both = Workspace.at(str(tmp_path / "both"))
    report = combined(both, members)
    weights = np.array([list(member["weights"].values()) for member in report["members"]])
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    own = json.loads(members[1].evaluation.read_text())["splits"]["test"]["auroc"]
    assert report["members"][1]["test_auroc"] == own
    of_both = report["splits"]["test"]["auroc"]["mean"]["value"]
    gain = report["members"][1]["test_auroc_gain"]["mean"]["value"]
    assert gain == pytest.approx(of_both - own["mean"]["value"])
    table = pd.read_parquet(both.predictions).query("split == 'test'")
    aurocs = auroc_per_finding(np.stack(table["labels"]), np.stack(table["logits"]))
    assert of_both == pytest.approx(aurocs.mean())
    assert json.loads(both.evaluation.read_text()) == report
    assert combined(both, members[:2], "mean")["members"][0]["weights"] == {"Bright": 0.5, "Coin": 0.5}


def test_the_order_of_the_rows_in_the_files_changes_nothing(members, tmp_path):
    both = Workspace.at(str(tmp_path / "both"))
    report = combined(both, members)
    for member in members[1:]:
        table = pd.read_parquet(member.predictions).sample(frac=1, random_state=1)
        table.to_parquet(member.predictions, index=False)
    assert combined(both, members) == report


def test_the_command_measures_and_records_the_ensemble(members, new_store, tmp_path):
    both = Workspace.at(str(tmp_path / "both"))
    new_store(both)
    named = json.dumps([str(member.root) for member in members])
    finished = run_here(PROJECT / "training/ensemble.py", "--workspace", both.root, "--ensemble.members", named)
    assert finished.code == 0, finished.stderr
    assert "95% interval" in finished.stdout
    report = json.loads(both.evaluation.read_text())
    use_store(both)
    summary = json.loads(both.summary.read_text())["ensemble"]
    tracked = mlflow.get_run(summary["run_id"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["ensemble.method"] == "mean"
    assert tracked.data.metrics["test_auroc_mean"] == pytest.approx(report["splits"]["test"]["auroc"]["mean"]["value"])
    assert {path.stem for path in both.artifacts.rglob("figures/*.png")} == set(FIGURES)


def test_a_version_older_than_card_json_is_read_from_the_table(members, monkeypatch):
    card = card_at(members[0])
    replace(card, delta_version=3).write(members[0].card)
    monkeypatch.setattr("etl.contract.version.read_card", lambda shards, version: replace(card, table=""))
    assert table_of(read_member(members[0])).card == card


def edit_json(path, change):
    report = json.loads(path.read_text())
    change(report)
    write_json(path, report)


def edit_table(path, change):
    table = pd.read_parquet(path)
    (table if (changed := change(table)) is None else changed).to_parquet(path, index=False)


def relabel(table):
    first = table.sort_values("image_id").index[0]
    table.at[first, "labels"] = np.float32([np.nan, np.nan])


def renamed(report):
    for key in ("temperatures", "logit_shifts"):
        report[key] = {"Bright": report[key]["Bright"], "Disc": report[key]["Coin"]}


def of_classes(report, difference):
    report["exclusive"] = True
    report["temperatures"] = {finding: 1.0 + difference * place for place, finding in enumerate(report["temperatures"])}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b.evaluation.unlink(), "b/evaluation.json is not.*No such file"),
        (lambda b: b.predictions.unlink(), "b/predictions.parquet is not.*No such file"),
        (lambda b: b.predictions.write_bytes(b.predictions.read_bytes()[:-99]), "b/predictions.parquet is not"),
        (lambda b: b.evaluation.write_text(b.evaluation.read_text()[:-99]), "b/evaluation.json is not"),
        (lambda b: b.evaluation.write_text("[]"), "b/evaluation.json is not"),
        (lambda b: edit_json(b.evaluation, lambda report: report.pop("temperatures")), "KeyError: 'temperatures'"),
        (lambda b: edit_json(b.evaluation, lambda r: r.update(delta_version=4)), "b cannot.*delta_version is 0 and 4"),
        (lambda b: edit_json(b.evaluation, lambda r: r.update(delta_table_id="x")), "delta_table_id is table and x"),
        (lambda b: edit_json(b.evaluation, lambda r: of_classes(r, 0)), "only one has classes"),
        (
            lambda b: edit_json(b.evaluation, lambda r: of_classes(r, 1)),
            "of an older release.*: train again with this",
        ),
        (lambda b: edit_json(b.evaluation, renamed), r"findings are \['Bright', 'Coin'\] and \['Bright', 'Disc'\]"),
        (lambda b: edit_table(b.predictions, lambda table: table.drop(columns="logits")), "KeyError: 'logits'"),
        (lambda b: edit_table(b.predictions, lambda table: table.iloc[[0, *range(len(table))]]), "AUROC|twice"),
        (lambda b: shutil.copy(b.root.parent / "c/predictions.parquet", b.predictions), "its AUROC of "),
    ],
)
def test_a_member_that_does_not_fit_is_named(members, tmp_path, spoil, message):
    spoil(members[1])
    with pytest.raises(InputError, match=message):
        read_members([str(member.root) for member in members], Workspace.at(str(tmp_path / "both")))


def test_other_images_and_labels_are_named(members, monkeypatch, tmp_path):
    unknown = "training.ensembles.members.ranked_auroc_per_finding"
    monkeypatch.setattr(unknown, lambda labels, _: np.full(labels.shape[1], np.nan))
    for member in members:
        edit_json(
            member.evaluation,
            lambda report: [ends.update(value=None) for s in split_of(report) for ends in s["auroc"].values()],
        )
    edit_table(members[1].predictions, relabel)
    edit_table(members[2].predictions, lambda table: table[table["image_id"] != "val_004.png"])
    for others, message in (([0, 1], "image test_000.png.*labels.*for"), ([0, 2], "image val_004.png of the val")):
        with pytest.raises(InputError, match=message):
            read_members([str(members[other].root) for other in others], Workspace.at(str(tmp_path / "both")))


def split_of(report):
    return report["splits"].values()


def test_two_different_members_and_a_workspace_of_its_own_are_needed(members, tmp_path):
    a, b, _ = (str(member.root) for member in members)
    both = Workspace.at(str(tmp_path / "both"))
    for folders in ([], [a], [a, f"{a}/../a"]):
        with pytest.raises(InputError, match="two or more different workspaces"):
            read_members(folders, both)
    with pytest.raises(InputError, match="has a training"):
        read_members([a, b], members[0])


def test_a_table_that_was_made_anew_is_refused(members):
    replace(card_at(members[0]), delta_table_id="new").write(members[0].card)
    with pytest.raises(InputError, match="made anew"):
        table_of(read_member(members[0]))


def test_an_undefined_finding_is_null_in_the_report_and_has_a_vote(members):
    edit_json(
        members[0].evaluation,
        lambda report: [report[key].update(Coin=None) for key in ("logit_shifts", "temperatures")],
    )
    member, raw = read_member(members[0]), pd.read_parquet(members[0].predictions).set_index("image_id")
    image = member.splits["val"].image_ids[0]
    assert member.splits["val"].logits[0, 1] == pytest.approx(raw.loc[image, "logits"][1])
