"""Several models as one graph, from workspaces to answers: two networks of films, and one of age, sex and view."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax

from conf.errors import InputError
from conf.settings import Training
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.table import read_pixels
from etl.contract.version import TableVersion, keep_card
from inference.candidate.making.export import export_graphs
from inference.candidate.making.fitting import fit_served
from inference.candidate.making.quantize import layers_in_fp32, quantize
from inference.model.graphs import open_graph, save_graph
from inference.model.inputs import attributes_of, codes_of
from inference.model.model_files import find_model
from inference.model.networks.ensemble import ServedLookup, resampling
from inference.model.served_model import open_served
from inference.model.variants import open_variant
from tests.in_process import Ended, run_here
from tests.inference.conftest import FINDINGS, REPOSITORY, SIZE_PX, start_and_end_run, train_network, write_table
from training.ensembles.boosting import fit
from training.ensembles.join import read_checkpoints
from training.ensembles.members import read_members
from training.ensembles.voting import vote
from training.loop.loss import log_odds
from training.measures.predictions import Predictions
from training.network.attributes import encode_attributes
from training.network.checkpoint import BEST, LAST, Checkpoint
from training.network.lookup import cells_of, everyone
from training.network.models import XrayClassifier
from training.network.weights import _read
from training.reading.readers import open_split
from training.record.evaluation import evaluate

MODES = ("int8", "fp32", "fp16", "onnx", "torch")


def run(script: str, workspace: Workspace, *arguments: object) -> Ended:
    return run_here(REPOSITORY / script, f"--workspace={workspace.root}", *arguments)


def pixels_of(rows) -> np.ndarray:
    """(rows, S, S) uint8."""
    found = read_pixels(rows, f"image_{SIZE_PX}")
    return np.stack([np.frombuffer(found[name], np.uint8).reshape(SIZE_PX, SIZE_PX) for name in rows.image_id])


@pytest.fixture(scope="module")
def members(new_store, tmp_path_factory, undrawn) -> list[Workspace]:
    """Three trainings on one table: films alone; films with age, sex and view, on finer maps; the three alone."""
    folder = tmp_path_factory.mktemp("members")
    made = train_members(folder, new_store, {"tabular": True, "map_stride": 8})
    table = Workspace.at(str(folder / "table"))
    boosting = Workspace.at(str(folder / "boosting"))
    new_store(boosting)
    ended = run("training/boosting.py", boosting, f"--etl.table={table.root}")
    assert ended.code == 0, ended.stderr
    assert "age, sex and view alone: mean AUROC 0." in ended.stdout
    return [*made, boosting]


def train_members(folder: Path, new_store, finer: dict, **both) -> list[Workspace]:
    """Trains two members on a table in `folder`. both: their settings; finer: settings of the second alone."""
    torch.set_num_threads(2)
    table, made, exclusive = Workspace.at(str(folder / "table")), [], "exclusive" in both
    card, pixels, labels = write_table(table, classes=exclusive)
    version = TableVersion(str(table.shards), card)
    rows = {split: version.rows(split) for split in ("train", "val", "test")}
    encoded = {
        split: torch.from_numpy(encode_attributes(part.age_years, part["sex"], part["view"]))
        for split, part in rows.items()
    }
    for name, network, kind in (("plain", "simple_cnn", {}), ("finer", "resnet10_half", finer)):
        workspace = Workspace.at(str(folder / name))
        new_store(workspace)
        keep_card(replace(card, table=str(table.root)), workspace)
        given = encoded if kind.get("tabular") else None
        model = train_network(card, pixels, labels, given and given["train"], network=network, **kind, **both)
        predicted = []
        for split in ("val", "test"):
            arguments = (torch.from_numpy(pixels_of(rows[split])), *([given[split]] if given else []))
            with torch.inference_mode():
                logits = model(*arguments)
            logits = (log_odds(logits) if exclusive else logits).numpy()
            predicted.append(Predictions(rows[split].image_id.to_numpy(), np.stack(rows[split].findings), logits))
        ones = np.ones(len(FINDINGS))
        report = evaluate(workspace, TableVersion.of(workspace), *predicted, ones, 0, exclusive=exclusive)
        save_checkpoint(workspace, network, model, card, report)
        made.append(workspace)
    return made


def save_checkpoint(workspace: Workspace, network: str, model: XrayClassifier, card: Card, report: dict) -> None:
    Checkpoint(
        weights=model.state_dict(),
        model=network,
        findings=FINDINGS,
        size_px=SIZE_PX,
        pixel_mean=card.pixel_mean[f"image_{SIZE_PX}"],
        pixel_std=card.pixel_std[f"image_{SIZE_PX}"],
        channels=1,
        tabular=model.tabular is not None,
        exclusive=model.exclusive,
        map_stride=model.map_stride,
        epoch=6,
        val_auroc=report["splits"]["val"]["auroc"]["mean"]["value"],
        delta_table_id="table",
        delta_version=0,
        run_id=start_and_end_run(workspace),
        commit="0123abc",
        settings={"training": vars(Training(loss="cross_entropy" if model.exclusive else "binary"))},
    ).save(workspace.checkpoints / BEST)


@pytest.fixture(scope="module")
def ensemble(members, new_store, run_register, tmp_path_factory) -> Workspace:
    """A workspace whose champion is the ensemble."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("ensemble")))
    new_store(workspace)
    named = json.dumps([str(member.root) for member in members])
    ended = run("training/ensemble.py", workspace, f"--ensemble.members={named}", "--ensemble.method=weights")
    assert ended.code == 0, ended.stderr
    assert "Next: python inference/register.py" in ended.stdout
    bounds = ("--inference.max_mean_drop=1", "--inference.max_finding_drop=1", "--inference.error_rate=0.2")
    registered = run_register(workspace, *bounds)
    assert (registered.code, "@champion" in registered.stdout) == (0, True), registered.stdout + registered.stderr
    return workspace


@pytest.fixture(scope="module")
def classes(new_store, tmp_path_factory, undrawn) -> list[Workspace]:
    """Two trainings of a softmax over three classes, the second with finer maps."""
    return train_members(tmp_path_factory.mktemp("classes"), new_store, {"map_stride": 8}, exclusive=True)


def test_an_ensemble_of_classes_answers_with_one_softmax(classes, members, new_store, tmp_path):
    """The softmax is that of the members' mean probability, divided by a temperature of the ensemble."""
    workspace, folders = Workspace.at(str(tmp_path / "ensemble")), [str(member.root) for member in classes]
    new_store(workspace)
    ended = run("training/ensemble.py", workspace, f"--ensemble.members={json.dumps(folders)}")
    assert (ended.code, "Next: python inference/register.py" in ended.stdout) == (0, True), ended.stdout + ended.stderr
    read, table = read_members(folders, Workspace.at(str(tmp_path / "other"))), TableVersion.of(workspace)
    test = read[0].splits["test"]
    mean = np.mean([expit(member.splits["test"].logits[:40]) for member in read], axis=0)
    inputs = (pixels_of(table.rows("test").set_index("image_id", drop=False).loc[test.image_ids[:40]]),)
    parts = (open_split(table, split, SIZE_PX) for split in ("train", "val"))
    served = fit_served(Checkpoint.load(workspace.checkpoints / BEST), table.card, *parts, 0)
    export_graphs(served, tmp_path, inputs)
    save_graph(quantize(tmp_path / "fp32", inputs), tmp_path / "int8")
    assert served.properties.exclusive and len(set(served.properties.temperatures)) == 1
    expected = softmax(np.log(mean) / served.properties.temperatures[0], axis=1)
    for mode in MODES:
        answer = open_variant(mode, tmp_path / mode)[0](*inputs)
        np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1, atol=1e-5, err_msg=mode)
        tolerance = {"int8": 0.1, "fp16": 1e-2}.get(mode, 1e-4)
        np.testing.assert_allclose(answer.probabilities, expected, atol=tolerance, err_msg=mode)
        means = softmax(answer.maps.mean(axis=(2, 3)), axis=1)
        np.testing.assert_allclose(means, answer.probabilities, atol=1e-3, err_msg=mode)
    with pytest.raises(InputError, match="only one has classes .*gradient boosting never has"):
        read_members([folders[0], str(members[2].root)], Workspace.at(str(tmp_path / "other")))


def test_every_form_answers_with_the_vote_of_the_members(ensemble, members):
    """Their calibrated logits come from predictions.parquet, which the trainings wrote before there was a graph."""
    read = read_members([str(member.root) for member in members], Workspace.at(str(ensemble.root.parent / "other")))
    checkpoint = Checkpoint.load(ensemble.checkpoints / BEST)
    votes = np.array([member["votes"] for member in checkpoint.members])
    test = read[0].splits["test"]
    voted = vote(np.stack([member.splits["test"].logits for member in read]), votes)
    rows = TableVersion.of(ensemble).rows("test").set_index("image_id", drop=False).loc[test.image_ids[:40]]
    inputs = pixels_of(rows), codes_of(attributes_of(rows))
    for mode in MODES:
        model = open_served(find_model(ensemble, "chexscale"), mode)
        answer, temperatures = model.predict(*inputs), np.array(model.properties.temperatures)
        assert model.properties.unsure["error_rate"] == 0.2
        expected = 1 / (1 + np.exp(-voted[:40] / temperatures))
        tolerance = {"int8": 0.1, "fp16": 1e-2}.get(mode, 1e-4)
        np.testing.assert_allclose(answer.probabilities, expected, atol=tolerance, err_msg=mode)
        # The mean of a map is the logit.
        means = 1 / (1 + np.exp(-answer.maps.mean(axis=(2, 3))))
        np.testing.assert_allclose(means, answer.probabilities, atol=1e-3, err_msg=mode)
        assert answer.maps.shape[2:] == (SIZE_PX // 8, SIZE_PX // 8)
    graph = open_graph(find_model(ensemble, "chexscale").variant("int8"))
    assert not layers_in_fp32(graph)


def test_the_card_names_the_members_and_what_the_maps_mean(ensemble):
    found = find_model(ensemble, "chexscale")
    text, sheet = ((found.folder / name).read_text() for name in ("model_card.md", "reporting.md"))
    assert "Model card: ensemble, INT8" in text and "Several networks vote, so the heat maps are relative" in text
    assert "weighted mean of 3 models' calibrated probabilities" in sheet
    for name in ("simple_cnn", "resnet10_half", "gradient_boosting"):
        assert f"{name} (MLflow run" in sheet
    properties = open_served(found, "int8").properties
    assert not properties.exact_maps and properties.attributes["columns"] == ["age_years", "sex", "view"]


def test_what_cannot_become_one_graph_is_said_and_leaves_no_checkpoint(members, tmp_path, new_store):
    workspace = Workspace.at(str(tmp_path / "both"))
    new_store(workspace)
    (tmp_path / "plain").mkdir()
    for path in members[0].root.iterdir():
        if path.name != "checkpoints":
            (tmp_path / "plain" / path.name).symlink_to(path)
    named = json.dumps([str(tmp_path / "plain"), str(members[1].root)])
    ended = run("training/ensemble.py", workspace, f"--ensemble.members={named}")
    assert ended.code == 0, ended.stderr
    assert f"It cannot be registered: {tmp_path / 'plain'} has no checkpoint" in ended.stdout
    assert not (workspace.checkpoints / BEST).exists()


def test_a_model_that_sees_no_film_is_not_served_alone(members, run_register):
    ended = run_register(members[2])
    assert ended.code == 2
    assert "gradient_boosting answers without looking at the film" in ended.stderr


def test_a_graph_finds_the_answer_of_every_person():
    people, table = everyone(), torch.arange(2.0 * len(everyone())).reshape(-1, 2)
    lookup = ServedLookup(table, torch.zeros(2), torch.ones(2))
    np.testing.assert_array_equal(cells_of(people), np.arange(len(people)))
    codes = torch.from_numpy(codes_of(attributes_of(people)))
    np.testing.assert_array_equal(lookup(codes), table)
    strange = torch.tensor([[np.nan, np.nan, 7], [500.0, 0, 0], [64.9, 1, 2]])
    meant = pd.DataFrame({"age_years": [None, 120, 64], "sex": [None, "F", "M"], "view": [None, "PA", "LATERAL"]})
    np.testing.assert_array_equal(lookup(strange), table[cells_of(meant)])


def test_a_map_on_another_grid_keeps_its_places():
    """A ramp has the value of its place wherever it is read."""
    coarse, fine = torch.tensor([0.25, 0.5, 2]), torch.tensor([0.0625, 0.125, 8])
    places = fine[0] + fine[1] * torch.arange(8)
    ramp = coarse[0] + coarse[1] * torch.arange(2)
    np.testing.assert_allclose(resampling(coarse, fine) @ ramp, places.clamp(0.25, 0.75), atol=1e-6)
    np.testing.assert_allclose(resampling(fine, fine), np.eye(8), atol=1e-6)


def test_a_checkpoint_of_another_training_is_no_member(members, tmp_path):
    read = read_members([str(member.root) for member in members], Workspace.at(str(tmp_path / "both")))
    read[1] = replace(read[1], workspace=read[0].workspace)
    with pytest.raises(InputError, match="is of another training than the evaluation beside it"):
        read_checkpoints(read)


def test_a_killed_ensemble_is_run_again_and_another_training_is_not_replaced(members, tmp_path):
    workspace = Workspace.at(str(tmp_path / "both"))
    workspace.checkpoints.mkdir(parents=True)
    folders = [str(member.root) for member in members]
    assert len(read_members(folders, workspace)) == 3
    for name in (LAST, BEST):
        # One that can resume, and one that has finished.
        (workspace.checkpoints / name).write_bytes((members[0].checkpoints / BEST).read_bytes())
        with pytest.raises(InputError, match="has a training, whose evaluation the ensemble's would replace"):
            read_members(folders, workspace)


@pytest.mark.parametrize("unknown", [slice(None), slice(0, None, 2)])
def test_boosting_does_without_ages(members, unknown):
    """No age is known at all, or none of the people whose label of one finding is known."""
    rows = {name: TableVersion.of(members[0]).rows(name).copy() for name in ("train", "val")}
    for part in rows.values():
        part.loc[part.index[unknown], "age_years"] = np.nan
        labels = np.stack(part["findings"])
        labels[np.setdiff1d(np.arange(len(part)), np.arange(len(part))[unknown]), 0] = np.nan
        part["findings"] = list(labels)
    answers, _ = fit(rows["train"], rows["val"], FINDINGS, 0)
    assert np.isfinite(answers).all()


def test_an_ensemble_starts_no_training(ensemble):
    with pytest.raises(InputError, match="ensemble, which is no single network: give that of a member"):
        _read(str(ensemble.checkpoints / BEST), "simple_cnn", None)
