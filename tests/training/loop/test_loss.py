import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from sklearn.metrics import log_loss

from conf.settings import Training
from tests.conftest import make_card
from training.loop.loss import cross_entropy, log_odds, loss_weights, masked_bce, positive_weights


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
    card = make_card(["A", "B", "C", "D", "E"], positives=[20, 1, 0, 7, 0], known=[100, 101, 100, 7, 0])
    assert positive_weights(card, 50).tolist() == [4, 50, 1, 1, 1]


def test_cross_entropy_of_the_parts_adds_up_and_smoothing_spreads_the_target():
    logits, labels = torch.randn(5, 3), torch.eye(3)[[0, 2, 1, 1, 0]]
    whole = cross_entropy(logits, labels)
    assert whole.item() == pytest.approx(-logits.log_softmax(1)[labels == 1].mean().item(), rel=1e-6)
    parts = [cross_entropy(logits[rows], labels[rows], count=5) for rows in (slice(0, 2), slice(2, 5))]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)
    spread = labels * 0.7 + 0.1
    expected = -(spread * logits.log_softmax(1)).sum(1).mean().item()
    assert cross_entropy(logits, labels, smoothing=0.3).item() == pytest.approx(expected, rel=1e-5)


@given(st_np.arrays(np.float32, (4, 3), elements=st.floats(-60, 60, width=32)))
def test_the_sigmoid_of_log_odds_is_the_softmax_and_no_certainty_is_infinite(values):
    logits = torch.from_numpy(values)
    odds = log_odds(logits)
    assert odds.isfinite().all()
    torch.testing.assert_close(odds.sigmoid(), logits.softmax(1), rtol=1e-4, atol=1e-6)
    # With two classes, they are the difference of the logits, however large.
    torch.testing.assert_close(log_odds(logits[:, :2])[:, 0], logits[:, 0] - logits[:, 1], rtol=1e-4, atol=1e-4)


def test_classes_have_no_weights():
    card = make_card(["A", "B"], positives=[20, 1], known=[100, 100])
    assert loss_weights(card, Training(loss="cross_entropy")).tolist() == [1, 1]
    assert loss_weights(card, Training(pos_weight_max=50)).tolist() == [4, 50]
