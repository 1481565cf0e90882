"""Labels that a training contradicts, on the small table and on predictions made in memory."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from conf.errors import InputError
from conf.settings import LabelQuality, Settings
from conf.workspace import Workspace
from conf.writing import write_json
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from tests.conftest import make_checkpoint
from tests.in_process import run_here
from tests.training.commands import PROJECT
from training.measures.predictions import Predictions
from training.network.build import build_model
from training.network.checkpoint import BEST, Checkpoint
from training.record.evaluation import evaluate
from training.suspects.find import find_suspects
from training.suspects.predicted import read_predicted
from training.suspects.run import run

pytestmark = pytest.mark.usefixtures("undrawn")
FEW = {"min_labels": 2}
"""the table's predicted splits have 20 images"""


def predict(
    workspace: Workspace,
    rows: dict,
    wrong: set[tuple[str, int]],
    strength: float = 4.0,
    surer: frozenset | set = frozenset(),
) -> None:
    """Leaves what a training does whose model is sure of each label, and more so of the opposite of the `wrong` ones:
    a suspect is one whose label the model contradicts more than it supports the other's on average."""
    rng, splits = np.random.default_rng(0), []
    for name in ("val", "test"):
        ids = np.array([image for image, row in rows.items() if row["split"] == name])
        labels = np.stack([rows[image]["findings"] for image in ids])
        signs = np.where(labels == 1, 1.0, -1.0)
        for row, image in enumerate(ids):
            for column in range(labels.shape[1]):
                signs[row, column] *= -1 if (image, column) in wrong else 1
                signs[row, column] *= 1.5 if (image, column) in wrong | surer else 1
        logits = (strength * signs + rng.normal(0, 0.2, labels.shape)).astype(np.float32)
        splits.append(Predictions(ids, labels, logits))
    evaluate(workspace, TableVersion.of(workspace), *splits, np.ones(2), 0)


def known(rows: dict, column: int, value: float, split: str = "test") -> list[str]:
    return [name for name, row in rows.items() if row["split"] == split and row["findings"][column] == value]


@pytest.fixture
def wrong(small_table) -> set[tuple[str, int]]:
    """One label of each finding, of images that come after some whose label is unknown."""
    rows = small_table[2]
    return {(known(rows, 0, 1.0)[-1], 0), (known(rows, 1, 0.0)[-1], 1)}


@pytest.fixture
def trained(workspace, small_table, wrong) -> Workspace:
    predict(workspace, small_table[2], wrong)
    torch.manual_seed(0)
    weights = build_model("simple_cnn", 2, 127, 70).state_dict()
    make_checkpoint(findings=["Bright", "Coin"], weights=weights).save(workspace.checkpoints / BEST)
    return workspace


def judge(workspace: Workspace, *trainings: Workspace, **given) -> dict:
    settings = LabelQuality([str(place.root) for place in trainings], **{**FEW, **given})
    run(Settings(str(workspace.root), label_quality=settings), workspace)
    return json.loads((workspace.label_quality / "report.json").read_text())


def suspects_of(workspace: Workspace) -> pd.DataFrame:
    return pd.read_csv(workspace.label_quality / "suspects.csv")


def test_planted_labels_are_the_suspects(trained, small_table, wrong):
    report = judge(trained)
    table = suspects_of(trained)
    findings = ["Bright", "Coin"]
    assert {(row.image_id, findings.index(row.finding)) for row in table.itertuples()} == wrong
    rows = small_table[2]
    assert [rows[row.image_id]["findings"][findings.index(row.finding)] for row in table.itertuples()] == [1, 0]
    assert table["rank"].tolist() == [1, 1]
    assert (np.abs(table.probability - table.label) > 0.5).all()
    bright = report["findings"]["Bright"]
    assert bright["suspects_present"] == 1 and bright["suspects_absent"] == 0
    assert bright["wrong_present"]["value"] == pytest.approx(1 / bright["present"], abs=0.1)
    assert report["images"] == 20
    assert json.loads(trained.summary.read_text())["label_quality"]["suspects"] == {"Bright": 1, "Coin": 1}


def test_the_table_for_judging_says_what_each_label_was_and_is_never_replaced_once_filled_in(trained):
    judge(trained)
    path = trained.label_quality / "to_judge.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(table) == ["image", "finding", "was", "label", "who", "why"]
    assert table.was.tolist() == ["1", "0"] and set(table[["label", "who", "why"]].to_numpy().ravel()) == {""}
    judge(trained)
    table.assign(why=["a fold", ""]).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"to_judge.csv is not as this command wrote it.*move it"):
        judge(trained)
    assert "a fold" in path.read_text()
    # As a spreadsheet may save it.
    path.write_text(table.assign(label="0").to_csv(index=False, sep=";"), encoding="utf-16")
    with pytest.raises(InputError, match="move it"):
        judge(trained)


def test_patients_whom_the_starting_weights_have_seen_are_not_judged(trained, small_table):
    best, card = trained.checkpoints / BEST, small_table[1]
    here = {"source": "first.pt", "delta_table_id": card.delta_table_id, "delta_version": card.delta_version}
    checkpoint = Checkpoint.load(best)
    replace(checkpoint, ancestors=[here, {"source": "imagenet"}]).save(best)
    table = TableVersion.of(trained)
    predicted, _ = read_predicted(table, [str(trained.root)])
    assert set(predicted.rows.patient_id) == set(table.rows("test").patient_id)
    replace(checkpoint, ancestors=[here | {"delta_table_id": "elsewhere"}]).save(best)
    predicted, _ = read_predicted(table, [str(trained.root)])
    assert set(predicted.rows.patient_id) == set(table.rows("val", "test").patient_id)
    assert "started from the weights of first.pt, whose table cannot be asked" in predicted.notes[0]


def test_the_page_shows_each_suspect_with_its_heat_map(trained, wrong):
    report = judge(trained)
    page = (trained.label_quality / "page.html").read_text()
    assert page.count("<figure>") == len(wrong)
    assert page.count('src="data:image/jpeg;base64,') == 2 * len(wrong)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert all(image in page for image, _ in wrong)
    assert "labelled <span class=present>present</span>" in page
    assert not any("heat map" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (lambda trained: (trained.checkpoints / BEST).unlink(), "it has no checkpoint"),
        (
            lambda trained: replace(make_checkpoint(), weights={}, members=[{}]).save(trained.checkpoints / BEST),
            "it is an ensemble, which has no network of its own",
        ),
        (
            lambda trained: make_checkpoint(delta_version=3).save(trained.checkpoints / BEST),
            "its checkpoint is of another training",
        ),
        (
            lambda trained: make_checkpoint(size_px=96).save(trained.checkpoints / BEST),
            "it takes squares of 96 px, which the table does not have",
        ),
    ],
)
def test_the_page_says_why_there_are_no_heat_maps(trained, wrong, spoil, note):
    spoil(trained)
    report = judge(trained)
    assert any(note in said for said in report["notes"])
    page = (trained.label_quality / "page.html").read_text()
    assert page.count("<img") == len(wrong) and note in page


def test_no_more_are_shown_than_asked_for(trained, small_table):
    rows = small_table[2]
    predict(trained, rows, {(name, 0) for name in known(rows, 0, 1.0)[:2]})
    judge(trained, shown=1)
    assert len(suspects_of(trained)) == 2
    assert len(pd.read_csv(trained.label_quality / "to_judge.csv")) == 1
    assert "The first 1 are shown" in (trained.label_quality / "page.html").read_text()


def test_labels_that_were_corrected_since_are_judged_as_they_are_now(trained, small_table, wrong):
    """The training saw other labels than the table has now: what it predicts is right, and no label is a suspect."""
    rows = {name: {**row, "findings": row["findings"].copy()} for name, row in small_table[2].items()}
    for image, column in wrong:
        rows[image]["findings"][column] = 1 - rows[image]["findings"][column]
    predict(trained, rows, set(), surer=wrong)
    # As if the labels of `rows` had been the table's then: now the table has those that this model contradicts.
    report = judge(trained)
    assert any("2 labels have changed since these trainings" in note for note in report["notes"])
    assert {(row.image_id, ["Bright", "Coin"].index(row.finding)) for row in suspects_of(trained).itertuples()} == wrong


def test_several_trainings_count_alike(trained, copied_table, small_table, wrong, tmp_path):
    """The second one contradicts no label, so that a label that the first one contradicts is half likely."""
    second = copied_table(tmp_path / "second")
    predict(second, small_table[2], set())
    one, other, both = (
        read_predicted(TableVersion.of(trained), [str(place.root) for place in places])[0]
        for places in ([trained], [second], [trained, second])
    )
    np.testing.assert_allclose(both.probabilities, (one.probabilities + other.probabilities) / 2)
    places = {image: place for place, image in enumerate(both.rows.image_id)}
    for image, column in wrong:
        assert both.probabilities[places[image], column] == pytest.approx(0.5, abs=0.1)
    assert set(both.by) == {0}


def test_a_finding_with_few_labels_or_one_value_is_left_out_with_a_word(trained):
    predicted, _ = read_predicted(TableVersion.of(trained), [str(trained.root)])
    labels = predicted.labels.copy()
    labels[:, 1] = np.where(np.isnan(labels[:, 1]), np.nan, 1)
    found = find_suspects(replace(predicted, labels=labels), LabelQuality(**FEW), 0)
    number = int((~np.isnan(labels[:, 1])).sum())
    assert found.left_out == {"Coin": f"all {number} known labels are present"}
    assert list(found.findings) == ["Bright"]
    labels[np.flatnonzero(labels[:, 1] == 1)[0], 1] = 0
    found = find_suspects(replace(predicted, labels=labels), LabelQuality(**FEW), 0)
    assert found.left_out == {"Coin": "only 1 labels are absent, fewer than label_quality.min_labels (2)"}


@pytest.mark.parametrize(("value", "word"), [(1, "all 20 known labels are present"), (np.nan, "no label is known")])
def test_a_table_whose_labels_say_nothing_is_refused(trained, value, word):
    predicted, _ = read_predicted(TableVersion.of(trained), [str(trained.root)])
    nothing = replace(predicted, labels=np.full_like(predicted.labels, value))
    with pytest.raises(InputError, match=f"no finding has enough labels to judge: Bright: {word}"):
        find_suspects(nothing, LabelQuality(**FEW), 0)


def test_a_workspace_without_a_table_or_a_training_is_refused(workspace, tmp_path):
    with pytest.raises(InputError, match=r"evaluation.json is not what a finished training writes.*train it"):
        judge(workspace)
    empty = Workspace.at(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no dataset card"):
        judge(empty)
    assert not empty.root.exists() and not workspace.label_quality.exists()


def edit(workspace: Workspace, change) -> None:
    table = pd.read_parquet(workspace.predictions)
    change(table).to_parquet(workspace.predictions, index=False)


def test_trainings_of_other_images_patients_or_findings_are_refused(trained, copied_table, tmp_path):
    table = TableVersion.of(trained)
    with pytest.raises(InputError, match="expected different workspaces"):
        read_predicted(table, [str(trained.root), f"{trained.root}/../{trained.root.name}"])
    other = Workspace.at(str(tmp_path / "other"))

    def fresh():
        other.root.mkdir(exist_ok=True)
        for name in ("evaluation", "predictions", "card"):
            getattr(other, name).write_bytes(getattr(trained, name).read_bytes())

    fresh()
    edit(other, lambda rows: rows.assign(image_id="x" + rows.image_id))
    with pytest.raises(InputError, match="predict none of the images of"):
        read_predicted(table, [str(other.root)])
    fresh()
    edit(other, lambda rows: rows.assign(patient_id="x" + rows.patient_id))
    with pytest.raises(InputError, match=r"image test_000.png is of patient test_00 in the table, and of xtest_00 "):
        read_predicted(table, [str(other.root)])
    fresh()
    report = json.loads(other.evaluation.read_text())
    for key in ("temperatures", "logit_shifts"):
        report[key] = {"Bright": 1.0, "Disc": 1.0}
    write_json(other.evaluation, report)
    with pytest.raises(InputError, match="was trained on the findings Bright, Disc, the table has Bright, Coin"):
        read_predicted(table, [str(other.root)])


def test_images_that_no_training_predicts_are_counted(trained):
    edit(trained, lambda rows: rows.assign(image_id=rows.image_id.replace("val_000.png", "gone.png")))
    card = Card.read(trained.card)
    predicted, _ = read_predicted(TableVersion.of(trained), [str(trained.root)])
    assert len(predicted.rows) == sum(card.images.values()) - 53 - 1
    assert predicted.notes[0].startswith("54 images are not judged (53 of train, 1 of val)")
    assert predicted.notes[1].startswith("1 predicted image is not in the table")


def test_the_command_says_what_it_found_and_what_to_do_next(trained):
    command = [PROJECT / "training/label_quality.py", "--workspace", trained.root]
    finished = run_here(*command, "--label_quality.min_labels", "2")
    assert finished.code == 0, finished.stderr
    assert "2 labels that the model contradicts" in finished.stdout
    assert "--etl.corrections" in finished.stdout
    refused = run_here(*command)
    assert refused.code == 2 and "error: no finding has enough labels to judge" in refused.stderr


def test_a_model_that_contradicts_no_label_leaves_an_empty_list(trained, small_table):
    predict(trained, small_table[2], set())
    report = judge(trained)
    assert suspects_of(trained).empty
    assert report["findings"]["Bright"]["suspects_present"] == 0
    assert "<figure>" not in (trained.label_quality / "page.html").read_text()
