import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from inference.candidate.making.familiarity import distance_threshold, fit_familiarity


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """(400, 6) float32, correlated; the last one is never active, as features after a ReLU may be."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)) + 3
    return np.column_stack([mixed, np.zeros(400)]).astype(np.float32)


def test_the_distance_is_mahalanobis(features):
    fitted = LedoitWolf().fit(features)
    expected = [mahalanobis(row, fitted.location_, fitted.precision_) for row in features[:20]]
    np.testing.assert_allclose(fit_familiarity(features).distances(features[:20]), expected, rtol=1e-3)


def test_one_training_like_image_in_a_hundred_is_called_unlike(features):
    distances = fit_familiarity(features[:200]).distances(features)
    threshold = distance_threshold(distances[200:])
    assert 0 < (distances[200:] > threshold).mean() <= 0.01


def test_images_that_break_correlations_or_wake_a_feature_are_far(features):
    familiarity = fit_familiarity(features[:200])
    rng = np.random.default_rng(1)
    shuffled = np.column_stack([rng.permutation(column) for column in features[200:].T])
    awake = features[200:] + np.array([0, 0, 0, 0, 0, 5], np.float32)
    for strange in (shuffled, awake):
        scores = familiarity.distances(np.concatenate([features[200:], strange]))
        assert roc_auc_score(np.arange(400) >= 200, scores) > 0.85


def test_fewer_images_than_features_still_have_distances():
    few = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    assert np.isfinite(fit_familiarity(few).distances(few)).all()
