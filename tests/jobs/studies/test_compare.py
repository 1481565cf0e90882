"""Comparing finished trainings, on workspaces made in memory, of one small table."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from conf.errors import InputError
from conf.workspace import Workspace, update_summary
from etl.contract.version import TableVersion
from jobs.studies.comparison import compare, table_of
from jobs.studies.predictions_file import read_predictions
from jobs.studies.results import FIGURES, PAGE, TABLE, TEXT, write_results
from jobs.studies.runs import names_of, read_runs
from tests.in_process import run_here
from tests.training.commands import PROJECT
from training.measures.predictions import Predictions
from training.network.build import build_model
from training.network.checkpoint import BEST, Checkpoint
from training.record.course import Course, read_course
from training.record.evaluation import evaluate
from training.record.store import use_store

COMPARE = PROJECT / "jobs" / "compare.py"
NAMES = ("weak", "strong", "same")
START_MS = 1_700_000_000_000
SIGNAL = {"weak": 0.5, "strong": 4.0, "same": 4.0}


@pytest.fixture(scope="module")
def trained(small_table, tmp_path_factory, new_store) -> Path:
    """Three workspaces as trainings on one table leave them; the last two have the same answers."""
    source, card, rows = small_table
    folder = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        rng, splits = np.random.default_rng(0), []
        for split in ("val", "test"):
            ids = [image for image, row in rows.items() if row["split"] == split]
            labels = np.stack([rows[image]["findings"] for image in ids])
            noise = rng.normal(size=labels.shape).astype(np.float32)
            splits.append(Predictions(np.array(ids), labels, noise + SIGNAL[name] * np.nan_to_num(labels)))
        workspace = Workspace.at(str(folder / name))
        replace(card, table=str(source.root)).write(workspace.card)
        with pytest.MonkeyPatch.context() as patch:
            for figure in ("draw_curves", "draw_reliability", "draw_subgroups"):
                patch.setattr(f"training.record.evaluation.{figure}", lambda *_: None)
            evaluate(workspace, TableVersion.of(workspace), *splits, np.ones(2), 0)
        new_store(workspace)
        save_checkpoint(workspace, card.findings)
    return folder


def save_checkpoint(workspace: Workspace, findings: list[str]) -> None:
    """The network and the MLflow run of a training of two epochs, 10 and 20 seconds after its start."""
    use_store(workspace)
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("study", workspace.artifacts.as_uri())
    info = client.create_run(experiment, start_time=START_MS).info
    for step, auroc in enumerate((0.6, 0.9), start=1):
        client.log_metric(info.run_id, "val_auroc_mean", auroc, timestamp=START_MS + 10_000 * step, step=step)
    client.set_terminated(info.run_id, end_time=START_MS + 25_000)
    torch.manual_seed(0)
    network = build_model("simple_cnn", len(findings), 100.0, 50.0)
    Checkpoint(
        weights=network.state_dict(),
        model="simple_cnn",
        findings=findings,
        size_px=32,
        pixel_mean=100.0,
        pixel_std=50.0,
        channels=1,
        tabular=False,
        epoch=2,
        val_auroc=0.9,
        delta_table_id="table",
        delta_version=0,
        run_id=info.run_id,
        commit="0123abc",
        settings={"training": {"weights": "", "seed": 3}},
    ).save(workspace.checkpoints / BEST)
    registry = {"run_id": info.run_id}
    update_summary(workspace, registry=registry, test_auroc={"fp32": 0.9, "int8": 0.89}, throughput={"int8": 1000.0})


@pytest.fixture
def folders(trained, tmp_path) -> list[str]:
    shutil.copytree(trained, tmp_path / "runs")
    return [str(tmp_path / "runs" / name) for name in NAMES]


def test_a_run_differs_from_itself_by_exactly_0_and_from_a_weaker_one_by_more(trained):
    runs = read_runs([str(trained / name) for name in NAMES])
    comparison = compare(runs, "strong", 0.8)
    weak, strong, same = comparison.differences
    for ends in (strong["mean"], same["mean"], same["Coin"]):
        # A finding of too few patients has no interval.
        assert ends["value"] == 0 and set(ends.values()) <= {0.0, None}
    assert weak["mean"]["value"] == pytest.approx(runs[0].auroc["mean"]["value"] - runs[1].auroc["mean"]["value"])
    assert weak["mean"]["value"] < -0.1


def test_the_table_has_what_each_run_was_and_took(trained):
    runs = read_runs([str(trained / name) for name in NAMES])
    table = table_of(compare(runs, "weak", 0.8)).set_index("run")
    row = table.loc["strong"]
    assert (row.network, row.size_px, row["weights"], row.seed, row.best_epoch) == ("simple_cnn", 32, "random", 3, 2)
    assert row.parameters == sum(
        weights.numel() for weights in build_model("simple_cnn", 2, 1.0, 1.0).state_dict().values()
    )
    assert (row.seconds, row["seconds_to_0.8"]) == (25, 20)
    assert (row.int8_images_per_s, row.int8_auroc_fall) == (1000, pytest.approx(0.01))
    assert 0.9 < row.auroc_Coin <= 1
    assert row.difference_mean == pytest.approx(row.auroc_mean - table.loc["weak"].auroc_mean)


def test_seconds_to_an_auroc_that_no_epoch_reached_are_unknown():
    course = Course(30, [(10, 0.6), (20, 0.8)])
    assert (course.seconds_to(0.6), course.seconds_to(0.7), course.seconds_to(0.9)) == (10, 20, None)


def test_a_run_without_its_store_or_summary_is_compared_by_what_is_left(folders):
    lost = Workspace.at(folders[1])
    lost.tracking_db.unlink()
    lost.summary.unlink()
    assert read_course(lost, "any") is None
    row = table_of(compare(read_runs(folders), "weak", 0.8)).set_index("run").loc["strong"]
    assert row.seconds is None or np.isnan(row.seconds)
    assert row.int8_auroc_fall is None or np.isnan(row.int8_auroc_fall)
    assert row.auroc_mean > 0.9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report | {"delta_version": 7}, "delta_version is 0 and 7"),
        (lambda report: report | {"delta_table_id": "other"}, "delta_table_id is"),
    ],
)
def test_runs_of_another_table_or_version_are_refused(folders, change, said):
    file = Workspace.at(folders[2]).evaluation
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(InputError, match=re.escape(said)):
        read_runs(folders)


def test_runs_with_other_test_images_or_labels_are_refused(folders):
    file = Workspace.at(folders[2]).predictions
    table = pd.read_parquet(file)
    table.assign(image_id=["other", *table.image_id[1:]]).to_parquet(file)
    with pytest.raises(InputError, match="cannot be compared: image"):
        read_runs(folders)


def test_what_is_no_run_is_named(folders, tmp_path):
    with pytest.raises(InputError, match="is not what a finished training writes"):
        read_runs([folders[0], str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="different workspaces"):
        read_runs([folders[0], folders[0]])


def test_names_are_as_long_as_it_takes_to_tell_them_apart():
    assert names_of([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert names_of([Path("/x/a"), Path("/y/a")]) == ["x/a", "y/a"]


def test_files_name_the_films_and_hold_every_finding(trained, tmp_path):
    comparison = compare(read_runs([str(trained / name) for name in NAMES]), "weak", 0.8)
    written = write_results(comparison, tmp_path)
    assert (
        {path.name for path in written} == {TABLE, TEXT, PAGE, *FIGURES} == {path.name for path in tmp_path.iterdir()}
    )
    page, text = (tmp_path / PAGE).read_text(), (tmp_path / TEXT).read_text()
    for part in ("Research use only", "test split of Delta version 0", "Coin", "strong"):
        assert part in page and part in text
    assert page.count("data:image/png;base64,") == 2 and "http" not in page


def test_the_command_compares_prints_and_records(folders, tmp_path):
    ended = run_here(COMPARE, *folders, "--reference=strong", f"--output={tmp_path / 'out'}")
    assert ended.code == 0 and "3 runs beside strong: test split of Delta version 0" in ended.stdout
    use_store(Workspace.at(folders[1]))
    run_id = re.search("MLflow run (\\w+)", ended.stdout)[1]
    client = mlflow.MlflowClient()
    assert client.get_run(run_id).info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(run_id, "comparison")} >= {f"comparison/{PAGE}"}
    metrics = client.get_run(run_id).data.metrics
    assert metrics["compared_difference_same"] == 0 > metrics["compared_difference_weak"]


def test_an_unknown_reference_is_named(folders, tmp_path):
    ended = run_here(COMPARE, *folders, "--reference=x", f"--output={tmp_path / 'out'}")
    assert ended.code == 2 and "--reference is x, expected one of the trainings weak, strong, same" in ended.stderr


@pytest.fixture
def published(trained, tmp_path):
    """Writes the predictions of the run `strong` as others would publish them; returns the run and the file."""
    (run,) = read_runs([str(trained / "strong")])
    test = run.member.splits["test"]
    table = pd.DataFrame({"Image Index": test.image_ids, "age": 50})
    for column, finding in enumerate(run.member.findings):
        table[f"prob_{finding.upper()}"] = 1 / (1 + np.exp(-test.logits[:, column]))

    def put(change=lambda table: table) -> tuple:
        change(table.sample(frac=1, random_state=0)).to_csv(tmp_path / "theirs.csv", index=False)
        return run, tmp_path / "theirs.csv"

    return put


def test_published_predictions_of_a_run_differ_from_it_by_0(published):
    run, file = published(lambda table: pd.concat([table, table.tail(1).assign(**{"Image Index": "another film"})]))
    theirs = read_predictions(file, "theirs.csv", run)
    assert theirs.auroc == run.auroc
    comparison = compare([run, theirs], run.name, 0.8)
    assert comparison.differences[1] == comparison.differences[0]
    row = table_of(comparison).set_index("run").loc["theirs.csv"]
    assert (row.network, row.test_images, row.auroc_Coin) == ("predictions", 11, run.auroc["Coin"]["value"])
    assert pd.isna(row.seconds) and pd.isna(row.parameters)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.iloc[1:], "lacks 1 film of the 11 in the test split"),
        (lambda table: pd.concat([table, table.head(1)]), "has a second row for film"),
        (lambda table: table.drop(columns="prob_COIN"), "columns with the scores of Coin: none, expected one"),
        (lambda table: table.assign(coin=0), "columns with the scores of Coin: prob_COIN, coin, expected one"),
        (lambda table: table.assign(prob_COIN="high"), "has 'high' for film"),
        (lambda table: table.assign(prob_BRIGHT=""), "has '' for film"),
        (lambda table: table.rename(columns={"Image Index": "x"}), "expected one with the films' names"),
        (lambda table: pd.DataFrame(), "cannot be read"),
    ],
)
def test_predictions_that_do_not_fit_the_films_are_refused(published, change, said):
    run, file = published(change)
    with pytest.raises(InputError, match=re.escape(said)):
        read_predictions(file, "theirs.csv", run)
