"""Voting weights on toy arrays."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax

from training.ensembles.voting import equal_weights, fit_weights, vote


def make_votes(seed: int, num_members: int = 3, num_images: int = 60, spread: float = 2.0):
    """Labels with unknown cells, and members that know something of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (num_images, 2)).astype(np.float32)
    logits = rng.normal(size=(num_members, num_images, 2)) * spread + labels - 0.5
    labels[rng.random(labels.shape) < 0.1] = np.nan
    labels[:2] = [[0, 0], [1, 1]]
    return labels, logits


def log_losses(labels, logits):
    margins = np.where(labels == 1, -1, 1) * logits
    return np.nanmean(np.where(np.isnan(labels), np.nan, np.logaddexp(0, margins)), axis=-2)


votes = st.builds(
    make_votes, st.integers(0, 10_000), st.integers(2, 5), st.integers(4, 80), st.sampled_from([0.01, 1, 30, 2000])
)


@settings(max_examples=50)
@given(votes)
def test_weights_are_shares_and_no_member_alone_does_better(made):
    labels, logits = made
    weights = fit_weights(labels, logits)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    voted = vote(logits, weights)
    assert np.isfinite(voted).all()
    others = [*log_losses(labels, logits), log_losses(labels, vote(logits, equal_weights(logits)))]
    assert (log_losses(labels, voted) <= np.min(others, axis=0) + 1e-4).all()


@settings(max_examples=30)
@given(votes, st.randoms(use_true_random=False))
def test_the_order_of_members_and_rows_is_only_an_order(made, random):
    labels, logits = made
    weights = fit_weights(labels, logits)
    members, rows = (random.sample(range(length), length) for length in logits.shape[:2])
    np.testing.assert_allclose(fit_weights(labels, logits[members]), weights[members], atol=2e-3)
    np.testing.assert_allclose(fit_weights(labels[rows], logits[:, rows]), weights, atol=2e-3)


def test_a_member_that_is_the_labels_gets_nearly_all_weight():
    labels, logits = make_votes(1)
    logits[1] = 40 * np.nan_to_num(labels) - 20
    assert (fit_weights(labels, logits)[1] > 0.99).all()


def test_members_that_say_the_same_and_findings_without_both_classes_have_equal_weights():
    labels, logits = make_votes(2)
    np.testing.assert_allclose(fit_weights(labels, logits[[0, 0, 0]]), 1 / 3)
    labels[labels[:, 1] == 1, 1] = 0
    weights = fit_weights(labels, logits)
    np.testing.assert_array_equal(weights[:, 1], 1 / 3)
    assert np.ptp(weights[:, 0]) > 0.01


def test_of_classes_a_member_has_one_weight_and_the_mean_sums_to_one():
    rng = np.random.default_rng(3)
    labels = np.eye(4)[rng.integers(0, 4, 200)]
    chances = [softmax(rng.normal(size=(200, 4)) + strength * labels, axis=1) for strength in (0.5, 1.0, 3.0)]
    logits = logit(np.stack(chances))
    weights = fit_weights(labels, logits, exclusive=True)
    assert (weights == weights[:, :1]).all() and weights[2, 0] > weights[1, 0]
    voted = expit(vote(logits, weights))
    np.testing.assert_allclose(voted.sum(axis=1), 1)
    np.testing.assert_allclose(voted, np.einsum("m,mik->ik", weights[:, 0], chances))
    # No other share of the two best is likelier.
    own = np.log(voted[labels == 1]).mean()
    for step in (-0.02, 0.02):
        moved = weights[:, 0] + step * np.array([0, -1, 1])
        if (moved >= 0).all() and (moved <= 1).all():
            assert np.log(np.einsum("m,mik->ik", moved, chances)[labels == 1]).mean() <= own + 1e-9


def test_a_vote_is_the_weighted_mean_of_probabilities():
    chances, weights = np.array([[[0.2, 0.9]], [[0.6, 0.5]]]), np.array([[0.25, 1], [0.75, 0]])
    np.testing.assert_allclose(expit(vote(logit(chances), weights)), [[0.5, 0.9]])
    sure = np.array([[[800.0, -800]], [[900, 800]]])
    np.testing.assert_allclose(vote(sure, np.full((2, 2), 0.5)), [[800 + np.log(2), 0]], atol=1e-9)
