import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from tests.conftest import make_card
from training.loss import masked_bce, positive_weights


def test_without_unknown_labels_it_is_the_usual_loss():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, (8, 3)).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)
    ours = masked_bce(torch.from_numpy(logits), torch.from_numpy(labels), torch.ones(3))
    assert ours.item() == pytest.approx(log_loss(labels.ravel(), 1 / (1 + np.exp(-logits.ravel()))), rel=1e-5)


def test_unknown_labels_add_neither_loss_nor_gradient():
    logits = torch.tensor([[3.0, -2.0]], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([[1.0, float("nan")]]), torch.ones(2))
    assert loss.item() == pytest.approx(np.log1p(np.exp(-3.0)), rel=1e-5)
    loss.backward()
    assert logits.grad[0, 1] == 0
    assert logits.grad[0, 0] != 0


def test_a_batch_without_known_labels_gives_zero_and_finite_gradients():
    logits = torch.ones(2, 2, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 2), float("nan")), torch.ones(2))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 2))


def test_with_a_count_the_parts_of_a_step_add_up_to_the_whole():
    logits, labels = torch.randn(5, 2), torch.tensor([[1.0, 0], [0, 1], [float("nan"), 1], [1, 1], [0, 0]])
    parts = [masked_bce(logits[rows], labels[rows], torch.ones(2), count=10) for rows in (slice(0, 2), slice(2, 5))]
    assert sum(parts).item() == pytest.approx(masked_bce(logits, labels, torch.ones(2)).item() * 9 / 10, rel=1e-6)


def test_weights_are_negatives_per_positive_up_to_the_ceiling():
    card = make_card(["A", "B", "C"], positives=[20, 1, 0], known=[100, 101, 100])
    assert positive_weights(card, 50).tolist() == [4, 50, 1]
