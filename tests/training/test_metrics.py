import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from training.metrics import auroc_per_finding, mean_auroc

ARRAYS = st_np.arrays(np.float64, (12, 2), elements=st.floats(-5, 5, width=16))
LABELS = st_np.arrays(np.float64, (12, 2), elements=st.sampled_from([0.0, 1.0, np.nan]))


@given(LABELS, ARRAYS)
def test_it_is_the_chance_that_a_positive_scores_above_a_negative(labels, scores):
    aurocs = auroc_per_finding(labels, scores)
    for column in range(2):
        positive, negative = (scores[labels[:, column] == value, column] for value in (1, 0))
        if len(positive) and len(negative):
            wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
            assert aurocs[column] == pytest.approx(wins)
        else:
            assert np.isnan(aurocs[column])


def test_a_finding_without_positives_is_undefined_and_left_out_of_the_mean():
    labels = np.array([[0, 0], [1, 0], [0, np.nan]])
    scores = np.array([[0.1, 0.3], [0.9, 0.1], [0.2, 0.5]])
    aurocs = auroc_per_finding(labels, scores)
    assert aurocs[0] == 1
    assert np.isnan(aurocs[1])
    assert mean_auroc(aurocs) == 1
    assert np.isnan(mean_auroc(aurocs[1:]))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 1\)"):
        auroc_per_finding(np.zeros((3, 2)), np.zeros((3, 1)))
