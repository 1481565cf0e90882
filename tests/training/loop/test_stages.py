"""Two stages, run by the command: first the last layer alone, then all layers; each has a child run."""

import json
from dataclasses import replace

import mlflow
import pytest
import torch

from conf.settings import Training
from tests.conftest import SIZE_PX
from tests.training.commands import train_here
from training.loop.stages import stages_of
from training.network.build import build_model
from training.network.checkpoint import BEST, Checkpoint
from training.record.store import use_store

pytestmark = pytest.mark.usefixtures("undrawn")


def test_one_stage_unless_the_head_has_epochs_of_its_own():
    (alone,) = stages_of(Training())
    assert (alone.settings, alone.frozen(build_model("simple_cnn", 2, 127, 70))) == (Training(), [])
    settings = Training(head_epochs=3, head_learning_rate=0.5, epochs=9, schedule="cosine", warmup_epochs=4)
    head, everything = stages_of(settings)
    assert everything.settings == replace(settings, head_epochs=0)
    assert (head.settings.epochs, head.settings.learning_rate, head.settings.warmup_epochs) == (3, 0.5, 0)
    assert [stage.name for stage in stages_of(replace(settings, epochs=0, warmup_epochs=0))] == ["head"]
    model = build_model("convnext_tiny", 2, 127, 70)
    assert head.frozen(model) == [model.body, model.neck]


def test_each_stage_starts_from_the_best_epoch_so_far_and_has_a_run(workspace, capsys):
    # The second stage cannot learn, so the result is the first stage's best epoch.
    stages = {"head_epochs": 3, "head_learning_rate": 0.02, "epochs": 1, "learning_rate": 1e-30, "weight_decay": 0}
    stages["freeze_batchnorm"] = True
    train_here(workspace, **stages)
    said = capsys.readouterr().out
    assert "head, epoch 3/3" in said
    assert "all, epoch 1/1" in said
    checkpoint = Checkpoint.load(workspace.checkpoints / BEST)
    assert checkpoint.epoch <= 3
    torch.manual_seed(0)
    fresh = build_model("simple_cnn", 2, 127, 70, size_px=SIZE_PX)
    for name, tensor in fresh.body.state_dict().items():
        assert torch.equal(checkpoint.weights[f"body.{name}"], tensor), name
    assert not torch.equal(checkpoint.weights["classifier.weight"], fresh.classifier.weight)

    use_store(workspace)
    run = mlflow.get_run(json.loads(workspace.summary.read_text())["training"]["run_id"])
    children = mlflow.search_runs(search_all_experiments=True, output_format="list")
    children = {run.info.run_name: run for run in children if run.data.tags.get("mlflow.parentRunId")}
    assert set(children) == {"stage head", "stage all"}
    for child in children.values():
        assert child.data.tags["mlflow.parentRunId"] == run.info.run_id
        assert child.info.status == "FINISHED"

    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_auroc_mean")
    *of_head, of_all = [point.value for point in history]
    assert of_all == pytest.approx(max(of_head)), "the second stage starts from the best epoch"

    def epochs_of(run_id: str) -> list[int]:
        return [point.step for point in mlflow.MlflowClient().get_metric_history(run_id, "val_auroc_mean")]

    assert epochs_of(children["stage head"].info.run_id) == [1, 2, 3]
    assert epochs_of(children["stage all"].info.run_id) == [4]
    assert epochs_of(run.info.run_id) == [1, 2, 3, 4]


def test_the_head_alone_is_trained_and_the_body_keeps_its_weights(workspace):
    train_here(workspace, head_epochs=1, head_learning_rate=0.02, epochs=0)
    checkpoint = Checkpoint.load(workspace.checkpoints / BEST)
    torch.manual_seed(0)
    fresh = build_model("simple_cnn", 2, 127, 70, size_px=SIZE_PX)
    for name, tensor in fresh.body.state_dict().items():
        assert torch.equal(checkpoint.weights[f"body.{name}"], tensor), name
    assert not torch.equal(checkpoint.weights["classifier.weight"], fresh.classifier.weight)
