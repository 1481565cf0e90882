"""The loop's choices, in one process on a small table."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from conf.errors import InputError
from conf.settings import Training
from etl.contract.version import TableVersion
from tests.conftest import SIZE_PX
from tests.training.toy_training import make_state
from training.loop import trainer as loop
from training.loop.seeds import random_state
from training.loop.trainer import Trainer
from training.measures.metrics import top_k_hits
from training.measures.predictions import Predictions
from training.network.build import build_model
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology
from training.reading.batches import read_batches, read_steps
from training.reading.plan import Plan
from training.reading.readers import open_split
from training.start.prepare import grid_of


def make_trainer(small_table, model: nn.Module | None = None, tabular: bool = False, frozen=(), **changes) -> Trainer:
    workspace, card, _ = small_table
    settings = Training(**{"epochs": 1, "batch_size": 16, "learning_rate": 0.01, "precision": "fp32", **changes})
    table = TableVersion(str(workspace.shards), card)
    places = {"has_boxes": settings.box_weight > 0, "has_regions": settings.lung_weight > 0}
    split = open_split(table, "train", SIZE_PX, tabular, **places)
    torch.manual_seed(0)
    model = model or build_model("simple_cnn", 2, 127, 70, tabular=tabular)
    ranks = Collectives(Topology.detect("cpu", {}))
    grid = grid_of(model, replace(settings, size_px=SIZE_PX)) if any(places.values()) else None
    plan = Plan.of(split, settings.batch_size, 1)
    return Trainer(model, settings, plan, torch.ones(2), ranks, frozen=frozen, grid=grid)


def weights_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def losses(trainer: Trainer, epoch: int = 0) -> list[float]:
    list(trainer.train_epoch(epoch))
    return trainer.result.losses


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_learns_about_the_same(small_table, precision):
    full, reduced = (losses(make_trainer(small_table, precision=p)) for p in ("fp32", precision))
    assert full == pytest.approx(reduced, rel=0.05)
    assert full != reduced


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_optimizer_and_evaluation_stay_fp32(small_table, precision):
    trainer = make_trainer(small_table, precision=precision, clip_norm=1.0)
    list(trainer.train_epoch(0))
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    tensors = [*trainer.model.state_dict().values(), *moments]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float32}
    predictions = trainer.predict(trainer.plan.split)
    expected = []
    with torch.inference_mode():
        for batch in read_batches(trainer.plan.split, loop.EVALUATION_BATCH_SIZE):
            expected.append(trainer.model(batch.pixels).numpy())
    np.testing.assert_array_equal(predictions.logits, np.concatenate(expected))
    with torch.inference_mode(), torch.autocast("cpu", loop.PRECISIONS[precision]):
        reduced = trainer.model(batch.pixels)
    assert not np.array_equal(reduced.float().numpy(), expected[-1]), "the precision would not be seen"


def test_the_bright_finding_is_learned(small_table):
    trainer = make_trainer(small_table, epochs=8, batch_size=8)
    first, *_ = losses(trainer)
    for epoch in range(1, 8):
        list(trainer.train_epoch(epoch))
    assert trainer.result.losses[-1] < 0.8 * first


@pytest.mark.parametrize(("weight", "cell"), [("box_weight", 0), ("lung_weight", -1)])
def test_the_map_moves_into_the_box_of_its_finding_or_to_the_lungs(small_table, weight, cell):
    shares = []
    for value in (0, 20):
        trainer = make_trainer(small_table, epochs=4, batch_size=8, **{weight: value})
        for epoch in range(4):
            list(trainer.train_epoch(epoch))
        trainer.model.eval()
        (batch,) = read_batches(trainer.plan.split, 64)
        with torch.inference_mode():
            maps = trainer.model.features_and_maps(batch.pixels)[1][batch.labels[:, 0] == 1, 0]
        shares.append(maps.flatten(1).softmax(1)[:, cell].mean().item())
    without, with_loss = shares
    assert without < 0.4 and with_loss > 0.9


def test_a_step_in_parts_has_the_loss_of_the_places_of_all_parts(small_table):
    weights = {"box_weight": 5, "lung_weight": 5}
    whole, parts = (losses(make_trainer(small_table, accumulation=number, **weights))[0] for number in (1, 4))
    without = losses(make_trainer(small_table))[0]
    # BatchNorm sees other images in each part.
    assert parts == pytest.approx(whole, rel=0.05) and whole > without + 0.5


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(small_table, monkeypatch):
    def small() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(SIZE_PX**2), nn.Linear(SIZE_PX**2, 2))

    # Processes that compile side by side would each import torch; each size of batch would be compiled by itself.
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    runs = []
    for wanted in (False, True):
        trainer = make_trainer(small_table, small(), compile=wanted, batch_size=53, epochs=3)
        runs.append([loss for epoch in range(3) for loss in losses(trainer, epoch)])
    eager, compiled = runs
    assert compiled == pytest.approx(eager, rel=1e-3) and len(compiled) == 3 and compiled[2] < 0.9 * compiled[0]


def test_age_sex_and_view_reach_the_model(small_table):
    trainer = make_trainer(small_table, tabular=True)
    before = [weight.clone() for weight in trainer.model.tabular.parameters()]
    losses(trainer)
    assert all(not torch.equal(a, b) for a, b in zip(before, trainer.model.tabular.parameters(), strict=True))
    workspace, card, _ = small_table
    predictions = trainer.predict(
        open_split(TableVersion(str(workspace.shards), card), "val", SIZE_PX, has_attributes=True)
    )
    assert np.isfinite(predictions.logits).all()


def test_the_norm_of_the_gradients_is_clipped(small_table):
    trainer = make_trainer(small_table, optimizer="sgd", schedule="constant", weight_decay=0, clip_norm=1e-3)
    before = weights_of(trainer)
    next(trainer.train_epoch(0))
    step = weights_of(trainer) - before
    # Nesterov's first step is 1.9 gradients long.
    assert step.norm() == pytest.approx(0.01 * 1.9 * 1e-3, rel=0.01)


def test_batchnorm_can_keep_its_statistics(small_table):
    for frozen in (False, True):
        trainer = make_trainer(small_table, freeze_batchnorm=frozen)
        before = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
        losses(trainer)
        same = [
            torch.equal(before[name], buffer) for name, buffer in trainer.model.named_buffers() if "running" in name
        ]
        assert same == [frozen] * len(same) and same


def test_frozen_parts_keep_weights_and_statistics(small_table):
    model = build_model("simple_cnn", 2, 127, 70)
    trainer = make_trainer(small_table, model, frozen=[model.body])
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    losses(trainer)
    changed = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_cross_entropy_learns_classes_and_refuses_other_labels(small_table, monkeypatch):
    def one_hot(batches):
        for batch in batches:
            yield replace(batch, labels=torch.eye(2)[(batch.labels[:, 0] == 1).long()])

    trainer = make_trainer(small_table, loss="cross_entropy")
    with pytest.raises(InputError, match="loss is cross_entropy but .* have no class, several classes or an unknown"):
        losses(trainer)
    monkeypatch.setattr(loop, "read_batches", lambda *a: one_hot(read_batches(*a)))
    monkeypatch.setattr(loop, "read_steps", lambda *a: (list(one_hot(batches)) for batches in read_steps(*a)))
    trainer = make_trainer(small_table, loss="cross_entropy", epochs=8, label_smoothing=0.1)
    for epoch in range(8):
        list(trainer.train_epoch(epoch))
    predictions = trainer.predict(trainer.plan.split)
    assert top_k_hits(predictions.labels, predictions.logits, 1).mean() > 0.9
    # With two classes, the log-odds of one are minus those of the other.
    np.testing.assert_allclose(predictions.logits[:, 0], -predictions.logits[:, 1], rtol=1e-4, atol=1e-5)
    trainer.after_validation(predictions)
    log_loss = np.log1p(np.exp(-predictions.logits[predictions.labels == 1])).mean()
    assert trainer.val_loss == pytest.approx(log_loss, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_and_names_the_images(small_table):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.calls = 0

        def forward(self, pixels):
            self.calls += 1
            return self.weight.expand(len(pixels), 2) * (float("nan") if self.calls == 2 else 1)

    with pytest.raises(
        InputError, match=r"the loss is nan in epoch 1, step 2, images train_0\d\d.png, .*learning_rate"
    ):
        losses(make_trainer(small_table, Broken()))


def test_a_state_of_more_ranks_gives_the_mean_of_their_statistics(small_table):
    trainer = make_trainer(small_table)
    losses(trainer)
    state, other = trainer.state(), make_trainer(small_table)
    name = next(name for name in state["buffers"][0] if name.endswith("running_mean"))
    shifted = {**state["buffers"][0], name: state["buffers"][0][name] + 2}
    other.load(make_state(**{**state, "buffers": [state["buffers"][0], shifted]}))
    torch.testing.assert_close(dict(other.model.named_buffers())[name], state["buffers"][0][name] + 1)


def test_logits_that_are_not_finite_are_refused(small_table):
    trainer = make_trainer(small_table)
    nan = Predictions(np.array(["a", "b"]), np.zeros((2, 2), np.float32), np.float32([[0, np.nan], [0, 0]]))
    with pytest.raises(InputError, match="logits of 1 of 2 validation images are not finite"):
        trainer.after_validation(nan)


def test_random_numbers_differ_by_every_part_of_their_place():
    places = [(), (0,), (0, 0), (5,), (5, 0), (0, 5), (5, 0, 1)]
    assert len({random_state(*place) for place in places}) == len(places)


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(small_table):
    def weights(seed: int) -> torch.Tensor:
        trainer = make_trainer(small_table, seed=seed)
        losses(trainer)
        return weights_of(trainer)

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
