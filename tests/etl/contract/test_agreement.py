"""Agreement of two sets of labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from sklearn.metrics import cohen_kappa_score

from etl.contract.agreement import agreement

LABELS = st_np.arrays(np.float64, (12, 2), elements=st.sampled_from([0.0, 1.0, np.nan]))


def test_a_case_computed_by_hand():
    first = np.array([1, 1, 1, 0, 0, 0, np.nan, 1])
    second = np.array([1, 1, 0, 0, 0, 1, 1, np.nan])
    (one,) = agreement(first[:, None], second[:, None])
    # 4 of 6 agree, chance gives 1/2.
    assert (one.films, one.first, one.second) == (6, 3, 3)
    assert (one.kappa, one.ppv, one.sensitivity) == pytest.approx((1 / 3, 2 / 3, 2 / 3))


@given(LABELS, LABELS)
def test_kappa_is_scikit_learns(first, second):
    for one, (ours, theirs) in zip(agreement(first, second), zip(first.T, second.T, strict=True), strict=True):
        known = ~(np.isnan(ours) | np.isnan(theirs))
        assert one.films == known.sum()
        if not known.any() or len(set(ours[known]) | set(theirs[known])) < 2:
            assert np.isnan(one.kappa)
        else:
            assert one.kappa == pytest.approx(cohen_kappa_score(ours[known], theirs[known]))


@given(LABELS, LABELS)
def test_ppv_one_way_is_sensitivity_the_other(first, second):
    for one, other in zip(agreement(first, second), agreement(second, first), strict=True):
        assert one.ppv == pytest.approx(other.sensitivity, nan_ok=True)
        assert one.kappa == pytest.approx(other.kappa, nan_ok=True)
