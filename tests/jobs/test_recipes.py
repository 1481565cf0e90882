"""Runs each recipe from its YAML: the ETL, the training under each launcher, and the registration of the last model.

`make recipes` runs this file in about 25 minutes. The settings of a YAML stay, except those that make a training long:
here there are few phantoms, few epochs and no download.
"""

import json
import shutil
import subprocess
from pathlib import Path

import mlflow
import pytest
import torch
from torchvision.models import densenet121

from conf.workspace import Workspace
from etl.contract.images.lungs.files import describe_network
from etl.contract.schema import Card
from inference.candidate.model_card import OF_PHANTOMS
from tests.jobs.chains import CHAINS
from tests.training.commands import BIN, LAUNCHERS, PROJECT
from training.network.checkpoint import BEST
from training.record.store import use_store

FEW = ["--etl.source", "phantoms", "--phantoms.num_images", "100", "--etl.val_fraction", "0.25"]
# Small row groups and files, so that with so few images both ranks have row groups.
FEW += ["--etl.rows_per_row_group", "8", "--etl.rows_per_file", "32", "--training.batch_size", "8"]
FEW += [
    "--inference.num_calibration_images",
    "16",
    "--inference.max_mean_drop",
    "1",
    "--inference.max_finding_drop",
    "1",
]
pytestmark = [pytest.mark.recipes, pytest.mark.timeout(1800)]


def run(*words: str | Path) -> str:
    command = [str(word) for word in words]
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, f"{' '.join(command)}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_recipe_runs_end_to_end_under_each_launcher(chain, tmp_path):
    # A file like torchvision's ImageNet weights, but with random weights.
    imagenet = tmp_path / "densenet121.pth"
    torch.save(densenet121().state_dict(), imagenet)
    files = {"IMAGENET": imagenet, "PRETRAIN": tmp_path / "pretrain" / "checkpoints" / BEST}
    workspaces = {recipe: Workspace.at(str(tmp_path / recipe)) for recipe in chain}
    arguments = {}
    for recipe, changes in chain.items():
        config, place = f"conf/{recipe}.yaml", workspaces[recipe].root
        arguments[recipe] = ["--config", config, "--workspace", place, *FEW, *(files.get(c, c) for c in changes)]
        run(BIN / "spark-submit", "etl/preprocess.py", *arguments[recipe])
    for launcher, command in LAUNCHERS.items():
        for recipe, workspace in workspaces.items():
            said = run(*command, "training/train.py", *arguments[recipe])
            assert "Warning" not in said
            summary = json.loads(workspace.summary.read_text())["training"]
            assert (summary["launcher"], summary["world_size"]) == (launcher, 1 if launcher == "none" else 2)
            use_store(workspace)
            assert mlflow.get_run(summary["run_id"]).info.status == "FINISHED"
    *_, last = workspaces
    run(BIN / "python", "inference/register.py", *arguments[last])
    assert json.loads(workspaces[last].summary.read_text())["registry"]["version"] == 1


def test_a_lung_network_is_trained_and_crops_the_films_of_a_classifier(tmp_path):
    words = ["--config", "conf/lungs.yaml", *FEW]
    whole, cropped = (Workspace.at(str(tmp_path / name)) for name in ("whole", "cropped"))
    of_whole = [*words, "--workspace", whole.root]
    run(BIN / "spark-submit", "etl/preprocess.py", *of_whole)
    run(BIN / "python", "training/lungs.py", *of_whole, "--lungs.epochs", "12")
    said = run(BIN / "python", "inference/lungs.py", *of_whole)
    network = str(whole.lungs / "model")
    assert f"Next: --etl.crop lungs --etl.lungs {network}" in said
    cut = ["--workspace", cropped.root, "--etl.crop", "lungs", "--etl.lungs", network]
    run(BIN / "python", "jobs/pipeline.py", *words, *cut, "--training.epochs", "1")
    card = Card.read(cropped.card)
    assert card.lungs == describe_network(network) and sum(card.kept_whole.values()) < sum(card.images.values()) / 4
    shutil.rmtree(network)
    film = min((cropped.phantoms / "images").iterdir())
    # So few films and epochs make no champion.
    run(BIN / "python", "inference/promote.py", "1", "--workspace", cropped.root)
    said = run(BIN / "python", "inference/infer.py", "--workspace", cropped.root, "--format=json", film)
    assert json.loads(said.splitlines()[0])["crop"]["width"] > 0
    assert OF_PHANTOMS in (cropped.model / "model_card.md").read_text()
