"""The command that tests a model on another hospital's films."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyarrow.dataset import dataset

from conf.workspace import Workspace
from etl.contract.schema import SPLITS, Card
from inference.candidate.making.unsure import add_bounds
from inference.candidate.measuring.evaluate import score_split
from inference.external.films import columns_for
from inference.model.model_files import ModelFiles, find_model
from inference.model.own_test import write_own_test
from inference.model.registry import TESTED_AT
from inference.model.served_model import ServedModel
from inference.model.variants import open_variant
from tests.conftest import make_card
from tests.in_process import Ended, run_here
from tests.inference.conftest import (
    FINDINGS,
    REPOSITORY,
    SIZE_PX,
    planted_images,
    register_champion,
    write_table,
)
from training.record.store import use_store


@pytest.fixture(scope="module")
def champion(int8, splits, workspace, tmp_path_factory) -> Workspace:
    """A champion that answers unsure."""
    folder = tmp_path_factory.mktemp("champion") / "model"
    shutil.copytree(int8.parent, folder)
    predict, properties = open_variant("int8", int8)
    add_bounds(folder, score_split({"int8": predict}, splits["val"], 16, properties), 0.2)
    predict, properties = open_variant("int8", folder / "int8")
    model = ServedModel(ModelFiles(NAME, 1, folder), "int8", properties, predict)
    scored = score_split({"int8": predict}, splits["test"], 16, properties)
    write_own_test(folder, scored.labels, scored.probabilities["int8"], scored.patients)
    return register_champion(model, workspace, tmp_path_factory.mktemp("external"), NAME)


NAME = "tested"
NAMES = ("Elsewhere", *FINDINGS[::-1])


def elsewhere(folder: Path, vocabulary: Sequence[str] = NAMES, **changes) -> Workspace:
    """A workspace with the films of another hospital, whose findings stand in another order. changes: of its card."""
    workspace = Workspace.at(str(folder))
    write_table(workspace, 5, vocabulary, "b-", delta_table_id="elsewhere", **changes)
    return workspace


def validate(workspace: Workspace, *options: str) -> Ended:
    script = REPOSITORY / "inference" / "validate.py"
    return run_here(script, f"--workspace={workspace.root}", f"--inference.registered_model={NAME}", *options)


@pytest.fixture(scope="module")
def tested(champion, tmp_path_factory) -> Ended:
    other = elsewhere(tmp_path_factory.mktemp("other") / "hospital-b")
    done = validate(champion, f"--scoring.source={other.root}")
    assert done.code == 0, done.stderr
    return done


@pytest.fixture
def report(champion, tested) -> dict:
    return json.loads((champion.external("hospital-b") / "report.json").read_text())


def test_findings_are_matched_by_name_whatever_their_order(report):
    assert report["findings"] == {
        "shared": dict(zip(FINDINGS, FINDINGS, strict=True)),
        "only_model": [],
        "only_films": ["Elsewhere"],
    }
    assert report["images"] == 448 and report["auroc"]["Bright_Corner"]["value"] > 0.7
    assert report["localisation"]["Chequers"]["pointing_game"] > 2 * report["localisation"]["Chequers"]["chance"]


def test_findings_of_other_names_are_matched_by_the_fields_terms():
    card = make_card(["Lung Opacity", "Pleural Effusion", "edema"], [1, 1, 1], [2, 2, 2])
    assert columns_for(["Effusion", "Mass", "Edema"], card) == [1, None, 2]


def test_the_change_is_the_difference_to_the_models_own_test_split(report):
    own = report["own_test"]
    assert own["images"] == 128
    for name in ("Bright_Corner", "Chequers", "mean"):
        here, there = report["auroc"][name]["value"], own["auroc"][name]["value"]
        assert own["change"][name]["value"] == pytest.approx(here - there, abs=1e-6)
        assert own["change"][name]["low"] <= own["change"][name]["value"] <= own["change"][name]["high"]
    assert own["change"]["mean"]["low"] < own["change"]["mean"]["high"]


def test_it_prints_and_writes_what_a_reader_needs(champion, tested):
    folder = champion.external("hospital-b")
    assert f"{NAME} version 1, INT8, on hospital-b (Delta version 0), 448 films of 448 patients" in tested.stdout
    assert "no film with the same pixels as one of the training; no patient of the training" in tested.stdout
    assert "weights that it started from (imagenet) not known" in tested.stdout
    assert "Only these films know: Elsewhere" in tested.stdout
    table = pd.read_csv(folder / "findings.csv").set_index("finding")
    assert list(table.index) == [*FINDINGS, "mean"] and table.loc["Chequers", "sensitivity_youden_low"] >= 0
    page = (folder / "report.md").read_text()
    assert "Research use only" in page and "| Chequers |" in page and "![auroc.png](auroc.png)" in page
    for name in ("auroc.png", "reliability.png", "subgroups.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_parquet(folder / "predictions.parquet")) == 448


def test_answers_at_the_shipped_error_rate_are_measured_there(champion, tested, report):
    described = report["unsure"]
    assert described["error_rate"] == 0.2 and set(described["findings"]) == set(FINDINGS)
    facts = described["findings"]["Chequers"]
    assert facts["present_answered_absent"]["low"] <= 0.2 and facts["absent_answered_present"]["low"] <= 0.2
    assert "Answers at an error rate of 0.2, by the shipped bounds" in tested.stdout
    folder = champion.external("hospital-b")
    table = pd.read_csv(folder / "findings.csv").set_index("finding")
    assert table.loc["Chequers", "unsure_high"] == pytest.approx(facts["unsure"]["high"])
    assert table.loc["Chequers", "absent_below"] == pytest.approx(facts["absent_below"])
    assert "Answers at an error rate of 0.2:" in (folder / "report.md").read_text()


def test_the_run_and_the_version_know_of_the_test_but_hold_no_patient(champion, tested, report):
    use_store(champion)
    client = mlflow.MlflowClient()
    tags = client.get_model_version(NAME, "1").tags
    summary = json.loads(tags[TESTED_AT + "hospital_2db"])
    assert summary["auroc"] == report["auroc"]["mean"] and summary["site"] == "hospital-b"
    run = client.get_run(summary["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["registered_version"] == "1"
    assert run.data.metrics["external_auroc_mean"] == pytest.approx(report["auroc"]["mean"]["value"])
    artifacts = {file.path for file in client.list_artifacts(summary["run_id"], "external")}
    assert "external/report.json" in artifacts
    assert not artifacts & {"external/predictions.parquet", "external/left_out.csv"}


def test_the_models_own_training_films_are_refused_or_left_out_by_name(champion):
    own = f"--scoring.source={champion.root}"
    refused = validate(champion, own)
    assert refused.code == 2 and "the workspace" in refused.stderr and "--validation.splits '[test]'" in refused.stderr
    splits = "--validation.splits=[val,test]"
    refused = validate(champion, own, splits)
    assert refused.code == 2 and "has seen 64 patients of these films" in refused.stderr
    done = validate(champion, own, splits, "--validation.seen=leave_out", "--validation.site=own")
    assert done.code == 0, done.stderr
    left_out = pd.read_csv(champion.external("own") / "left_out.csv")
    assert len(left_out) == 64 and left_out.image_id.str.startswith("val_").all()
    # On its own test split the model does as well as on its own test split.
    change = json.loads((champion.external("own") / "report.json").read_text())["own_test"]["change"]
    assert change["mean"]["value"] == 0
    alone = validate(champion, own, "--validation.splits=[val]", "--validation.seen=leave_out")
    assert alone.code == 2 and "none of the 64 films is left" in alone.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocabulary": ["A", "B"]}, "the model knows Bright_Corner, Chequers, Never"),
        ({"sizes_px": [32]}, "the model takes 64 pixels"),
        ({"channels": 3}, "in colour"),
    ],
)
def test_films_that_the_model_cannot_be_tested_on_are_named(champion, tmp_path, changes, said):
    done = validate(champion, f"--scoring.source={elsewhere(tmp_path / 'x', **changes).root}")
    assert done.code == 2 and said in done.stderr, done.stderr


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_that_are_all_the_same_have_rates_and_no_auroc(champion, tmp_path, label):
    done = validate(champion, f"--scoring.source={elsewhere(tmp_path / f'all-{label:.0f}', label=label).root}")
    assert done.code == 0, done.stderr
    report = json.loads((champion.external(f"all-{label:.0f}") / "report.json").read_text())
    assert report["auroc"]["mean"] == {"value": None, "low": None, "high": None}
    rates = report["operating_points"]["youden"]["Chequers"]
    assert (rates["sensitivity"]["value"] is None) == (label == 0)
    assert (rates["specificity"]["value"] is None) == (label == 1)


def test_a_card_that_counts_labels_that_no_tested_film_has_is_found_out(champion, tmp_path):
    done = validate(champion, f"--scoring.source={elsewhere(tmp_path / 'none', label=float('nan')).root}")
    assert done.code == 2 and "has a known label of Bright_Corner" in done.stderr


def test_films_without_a_label_are_named(champion, tmp_path):
    other = elsewhere(tmp_path / "x", known={split: dict.fromkeys(NAMES, 0) for split in SPLITS})
    done = validate(champion, f"--scoring.source={other.root}")
    assert done.code == 2 and "have no label of them" in done.stderr


def test_a_recalibrated_model_is_a_version_of_its_own(champion, tmp_path):
    done = validate(
        champion, f"--scoring.source={elsewhere(tmp_path / 'hospital-c').root}", "--validation.recalibrate=true"
    )
    assert done.code == 0, done.stderr
    assert f"Registered {NAME} version 2 as @challenger, recalibrated for hospital-c" in done.stdout
    assert "promote.py 2" in done.stdout and " other films of " in done.stdout
    use_store(champion)
    client = mlflow.MlflowClient()
    tags = client.get_model_version(NAME, "2").tags
    assert (tags["recalibrated_for"], tags["recalibrated_from"], tags["gate"]) == ("hospital-c", "1", "not asked")
    assert int(client.get_model_version_by_alias(NAME, "champion").version) == 1
    assert find_model(champion, NAME, "2").folder.is_relative_to(champion.artifacts)
    # It is tested as any version, with its own thresholds, but not on the patients that it was fitted to.
    same = f"--scoring.source={tmp_path / 'hospital-c'}", "--validation.site=again", "2"
    refused = validate(champion, *same)
    assert refused.code == 2 and "was fitted to" in refused.stderr
    again = validate(champion, *same, "--validation.seen=leave_out")
    assert again.code == 0, again.stderr
    held_out = json.loads((champion.external("hospital-c") / "report.json").read_text())["recalibration"]["held_out"]
    assert json.loads((champion.external("again") / "report.json").read_text())["patients"] == held_out["patients"]
    thresholds = [
        json.loads((champion.external(site) / "report.json").read_text())["operating_points"]["youden"]["Chequers"]
        for site in ("hospital-c", "again")
    ]
    assert thresholds[0]["threshold"] != thresholds[1]["threshold"]


@pytest.mark.spark
@pytest.mark.slow
def test_a_folder_with_its_labels_becomes_a_table_as_the_models_and_is_read_once(champion, tmp_path, capfd):
    pixels, labels, _ = planted_images(60, np.random.default_rng(9))
    folder = tmp_path / "clinic"
    folder.mkdir()
    for number, film in enumerate(pixels):
        # Twice as large, because smaller films go to quarantine.
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(film, (2 * SIZE_PX, 2 * SIZE_PX), interpolation=0))
    cells = pd.DataFrame(labels[:, :2], columns=FINDINGS[:2]).astype("Int64")
    names = {"image": [f"{number}.png" for number in range(60)], "patient": [f"c{number // 2}" for number in range(60)]}
    pd.DataFrame(names).join(cells).to_csv(folder / "labels.csv", index=False)
    options = (f"--scoring.source={folder}", "--etl.format=csv", "--etl.max_quarantined_fraction=0.5")
    for expected in ("changes since the previous version: ", "nothing has changed"):
        done = validate(champion, *options)
        # The ETL is a process of its own.
        said = capfd.readouterr().out
        assert done.code == 0, said + done.stdout + done.stderr
        assert expected in said
    report = json.loads((champion.external("clinic") / "report.json").read_text())
    assert report["findings"]["only_model"] == ["Never"] and report["patients"] == 30
    assert report["auroc"]["Bright_Corner"]["value"] > 0.7
    assert Card.read(champion.external("clinic") / "card.json").sizes_px == [SIZE_PX]


def test_without_the_table_of_the_training_the_check_is_asked_for(champion, tmp_path):
    other, table = elsewhere(tmp_path / "b"), champion.shards.rename(champion.root / "moved")
    try:
        done = validate(champion, f"--scoring.source={other.root}")
        assert done.code == 2 and "--validation.seen unchecked" in done.stderr, done.stderr
        done = validate(champion, f"--scoring.source={other.root}", "--validation.seen=unchecked")
        assert done.code == 0 and "not checked against the training" in done.stdout, done.stderr
    finally:
        table.rename(champion.shards)


@pytest.mark.parametrize(
    ("source", "said"), [("", "expected the films of another hospital"), ("/nowhere/b", "is no folder, expected")]
)
def test_a_source_that_is_missing_or_no_folder_is_named(champion, source, said):
    done = validate(champion, f"--scoring.source={source}")
    assert done.code == 2 and said in done.stderr


def test_results_of_other_films_of_the_same_name_are_not_replaced(champion, tested, tmp_path):
    done = validate(champion, f"--scoring.source={elsewhere(tmp_path / 'hospital-b').root}")
    assert done.code == 2 and "--validation.site" in done.stderr


def test_splits_are_different_and_have_films(champion, tmp_path):
    twice = validate(champion, f"--scoring.source={champion.root}", "--validation.splits=[test,test]")
    assert twice.code == 2 and "different splits" in twice.stderr


@pytest.fixture
def judged(tmp_path) -> Path:
    """The films of `elsewhere` in a table with two findings only, where every fourth label is the other one."""
    workspace, names = Workspace.at(str(tmp_path / "second")), FINDINGS[1::-1]
    card, _, _ = write_table(workspace, 5, names, "c-", delta_table_id="second")
    table = dataset(workspace.shards, partitioning="hive").to_table()
    labels = np.array(table["findings"].to_pylist(), np.float32)
    labels[::4] = 1 - labels[::4]
    # A film that nobody has judged.
    table = table.set_column(table.column_names.index("findings"), "findings", pa.array(list(labels))).slice(1)
    write_deltalake(workspace.shards, table, partition_by=["split"], mode="overwrite")
    replace(card, delta_version=1).write(workspace.card)
    return workspace.root


def test_a_second_reference_standard_is_measured_on_the_films_that_both_know(champion, judged, tmp_path):
    other = elsewhere(tmp_path / "twice")
    done = validate(champion, f"--scoring.source={other.root}", f"--validation.second={judged}")
    assert done.code == 0, done.stderr
    folder = champion.external("twice")
    report = json.loads((folder / "report.json").read_text())
    second = report["second"]
    assert second["films"] == report["images"] - 1
    assert list(second["findings"]) == list(FINDINGS[:2])
    for finding, one in second["findings"].items():
        assert report["known"][finding] - 1 <= one["films"] <= report["known"][finding]
        # Every fourth label differs.
        assert 0.2 < one["kappa"] < 0.8 and 0.4 < one["labels_ppv"]["value"] < 1
        change = second["change"][finding]
        assert change["value"] == pytest.approx(
            second["auroc_second"][finding]["value"] - second["auroc_first"][finding]["value"]
        )
        assert change["high"] < 0, "other labels than those that were learned"
    assert second["auroc_first"][FINDINGS[2]]["value"] is None
    assert second["change"]["mean"]["value"] == pytest.approx(
        second["auroc_second"]["mean"]["value"] - second["auroc_first"]["mean"]["value"]
    )
    assert "By two reference standards" in (folder / "report.md").read_text()
    assert "By the labels of the films (1)" in done.stdout
    row = pd.read_csv(folder / "findings.csv").set_index("finding").loc[FINDINGS[0]]
    assert row.auroc_second_of_both == second["auroc_second"][FINDINGS[0]]["value"]
    assert row.kappa_of_both == second["findings"][FINDINGS[0]]["kappa"]


def test_a_second_standard_of_other_films_is_named(champion, tmp_path):
    other = elsewhere(tmp_path / "first")
    write_table(Workspace.at(str(tmp_path / "others")), 6, NAMES, "d-", delta_table_id="others")
    for folder, said in (
        (tmp_path / "others", "has none of the tested films"),
        (tmp_path / "no", "no dataset card"),
        (other.root, "is the tested table itself"),
    ):
        done = validate(champion, f"--scoring.source={other.root}", f"--validation.second={folder}")
        assert done.code == 2 and said in done.stderr, done.stderr
