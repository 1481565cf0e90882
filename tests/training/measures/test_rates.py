"""Rates at thresholds and their intervals over patients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from scipy.stats import binomtest

from training.measures.rates import bootstrap_rates
from training.measures.thresholds import measure_thresholds

NAMES = ("sensitivity", "specificity", "ppv", "npv")


@settings(max_examples=40)
@given(
    labels=st_np.arrays(np.float64, (12, 2), elements=st.sampled_from([0.0, 1.0, np.nan])),
    scores=st_np.arrays(np.float64, (12, 2), elements=st.integers(0, 3)),
)
def test_the_rates_are_those_of_the_thresholds_and_lie_in_their_intervals(labels, scores):
    rates = bootstrap_rates(labels, scores >= 2, np.arange(12) // 2, num_resamples=50, seed=0)
    expected = measure_thresholds(labels, scores, np.array([2.0, 2.0]))
    for name in NAMES:
        value, low, high = (getattr(part, name) for part in (rates.values, rates.low, rates.high))
        np.testing.assert_allclose(value, getattr(expected, name))
        known = ~np.isnan(low)
        assert (low[known] >= 0).all() and (low[known] <= high[known]).all() and (high[known] <= 1).all()
        assert np.isnan(low[np.isnan(value)]).all()


def test_images_of_one_patient_widen_an_interval_as_one_image_would():
    rng = np.random.default_rng(0)
    called, labels = rng.random((60, 1)) < 0.7, np.ones((60, 1))
    one = bootstrap_rates(labels, called, np.arange(60), num_resamples=300, seed=0)
    many = bootstrap_rates(
        np.repeat(labels, 9, axis=0),
        np.repeat(called, 9, axis=0),
        np.repeat(np.arange(60), 9),
        num_resamples=300,
        seed=0,
    )
    for part in ("values", "low", "high"):
        assert getattr(many, part).sensitivity == pytest.approx(getattr(one, part).sensitivity)
    exact = binomtest(int(called.sum()), 60).proportion_ci(method="wilson")
    assert one.low.sensitivity[0] == pytest.approx(exact.low, abs=0.03)
    assert one.high.sensitivity[0] == pytest.approx(exact.high, abs=0.03)


@pytest.mark.parametrize("call", [True, False])
def test_a_rate_of_0_or_1_has_the_exact_interval_of_its_patients(call):
    rates = bootstrap_rates(np.ones((8, 1)), np.full((8, 1), call), np.arange(8), num_resamples=20, seed=0)
    exact = binomtest(8 * call, 8).proportion_ci()
    assert rates.low.sensitivity[0] == pytest.approx(exact.low)
    assert rates.high.sensitivity[0] == pytest.approx(exact.high)
    assert np.isnan(rates.values.specificity[0]) and np.isnan(rates.low.specificity[0])


def test_one_patient_gives_no_interval():
    rates = bootstrap_rates(np.ones((8, 1)), np.ones((8, 1), bool), np.zeros(8), num_resamples=20, seed=0)
    assert rates.values.sensitivity[0] == 1 and np.isnan(rates.low.sensitivity[0])
