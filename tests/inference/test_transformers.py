"""Networks of patch tokens go the whole way: training, export, INT8, gate, champion, answers."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from conf.settings import Training
from conf.workspace import Workspace
from etl.contract.schema import Card
from inference.candidate.making.calibration_set import calibration_inputs
from inference.candidate.making.export import export_graphs
from inference.candidate.making.fitting import fit_served
from inference.candidate.making.quantize import quantize
from inference.candidate.model_card import RELATIVE_MAPS
from inference.model.graphs import compile_graph
from inference.model.model_files import find_model
from inference.model.served_model import open_served
from tests.in_process import run_here
from tests.inference.conftest import FINDINGS, REPOSITORY, SIZE_PX
from tests.training.commands import train_here
from training.network.build import build_model


@pytest.mark.long
def test_a_vision_transformer_becomes_the_champion_and_answers(
    workspace, run_register, test_images, tmp_path, monkeypatch, capsys
):
    own = Workspace.at(str(shutil.copytree(workspace.root, tmp_path / "workspace")))
    settings = {"model": "timm:test_vit", "size_px": SIZE_PX, "epochs": 6, "batch_size": 32, "learning_rate": 2e-3}
    train_here(own, **settings, layer_decay=0.8, drop_path=0.1, head_epochs=1)
    assert "Next: python inference/register.py" in capsys.readouterr().out
    # Any drop passes, because the workspace may have a champion of another network.
    bounds = ("--inference.max_mean_drop=1", "--inference.max_finding_drop=1")
    registered = run_register(own, *bounds)
    assert registered.code == 0, registered.stderr
    assert "Gate passed" in registered.stdout
    card = json.loads((own.model / "model_card.json").read_text())
    assert RELATIVE_MAPS in card["limits"] and not card["model"]["exact_maps"]
    assert "patch token" in (own.model / "reporting.md").read_text()
    assert not json.loads((own.model / "report.json").read_text())["exact_maps"]

    film, drawn = tmp_path / "film.png", []
    cv2.imwrite(str(film), test_images[0])
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda _, place, text, *rest, **named: drawn.append(text))
    words = [f"--workspace={own.root}", "--format=json", f"--heatmaps={tmp_path / 'maps'}", film]
    ended = run_here(REPOSITORY / "inference" / "infer.py", *words)
    assert ended.code in (0, None)
    (answer,) = map(json.loads, ended.stdout.splitlines())
    assert [finding["name"] for finding in answer["findings"]] == FINDINGS
    if answer["familiar"]:
        assert any("relative evidence, patch against patch" in text for text in drawn)
    served = open_served(find_model(own, "chexscale"))
    np.testing.assert_allclose(
        served.predict(test_images[:1]).probabilities[0],
        [finding["probability"] for finding in answer["findings"]],
        atol=1e-4,
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_torchvisions_transformers_are_exported_and_quantised(
    name, workspace, checkpoint, splits, test_images, tmp_path
):
    """Random weights: export_graphs raises if a graph is not what torch computes."""
    card = Card.read(workspace.card)
    model = build_model(name, len(FINDINGS), checkpoint.pixel_mean, checkpoint.pixel_std, size_px=SIZE_PX)
    settings = {"training": vars(Training(model=name))}
    trained = replace(checkpoint, model=name, weights=model.state_dict(), settings=settings)
    served = fit_served(trained, card, splits["train"], splits["val"], seed=0)
    assert served.properties.exact_maps == (name == "swin_t")
    export_graphs(served, tmp_path, (test_images,))
    inputs = calibration_inputs(splits["train"], 4, 0, served.properties)
    answer = compile_graph(quantize(tmp_path / "fp32", inputs))(test_images)
    assert answer.maps.shape == ((5, 3, 4, 4) if name == "vit_b_16" else (5, 3, 2, 2))
    logits = np.log(answer.probabilities / (1 - answer.probabilities))
    np.testing.assert_allclose(answer.maps.mean(axis=(2, 3)), logits, atol=1e-4)
