import json
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inference.gate import decide

FINDINGS = ["Mass", "Nodule", "Hernia"]
auroc = st.floats(0, 1) | st.just(nan)
three = st.lists(auroc, min_size=3, max_size=3).map(np.array)
bound = st.floats(0, 1)


@given(three, three, bound, bound)
def test_never_passes_what_a_bound_forbids(fp32, int8, max_mean_drop, max_finding_drop):
    decision = decide(fp32, int8, FINDINGS, max_mean_drop, max_finding_drop)
    pairs = [(before, after) for before, after in zip(fp32, int8, strict=True) if not isnan(before)]
    if decision.passed:
        assert pairs
        assert all(before - after <= max_finding_drop for before, after in pairs)
        assert (
            np.mean([before for before, _ in pairs]) - np.mean([after for _, after in pairs]) <= max_mean_drop + 1e-12
        )
    else:
        assert decision.reasons


@given(three, bound, bound)
def test_passes_a_model_that_loses_nothing(fp32, max_mean_drop, max_finding_drop):
    assume(not np.isnan(fp32).all())
    assert decide(fp32, fp32, FINDINGS, max_mean_drop, max_finding_drop).passed


@given(three, three)
def test_undefined_findings_are_listed_and_never_compared(fp32, int8):
    decision = decide(fp32, int8, FINDINGS, 1, 1)
    assert decision.undefined == [f for f, value in zip(FINDINGS, fp32, strict=True) if isnan(value)]
    assert not set(decision.undefined) & set(decision.drops)


def test_reason_names_finding_drop_and_bound():
    decision = decide(np.array([0.9, 0.8, 0.7]), np.array([0.9, 0.8, 0.65]), FINDINGS, 0.1, 0.02)
    assert not decision.passed
    assert decision.reasons == ["Hernia: AUROC falls by 0.0500, at most 0.02 (inference.max_finding_drop)"]


def test_small_drops_everywhere_fail_the_mean():
    decision = decide(np.array([0.9, 0.8, 0.7]), np.array([0.89, 0.79, 0.69]), FINDINGS, 0.005, 0.02)
    assert not decision.passed
    assert "mean AUROC falls by 0.0100" in decision.reasons[0]


def test_gain_of_one_finding_does_not_hide_the_loss_of_another():
    assert not decide(np.array([0.9, 0.8, 0.7]), np.array([0.8, 0.9, 0.7]), FINDINGS, 0.005, 0.02).passed


def test_nothing_measured_does_not_pass():
    decision = decide(np.full(3, nan), np.full(3, nan), FINDINGS, 1, 1)
    assert not decision.passed
    assert "nothing measured" in decision.reasons[0]
    assert decision.undefined == FINDINGS
    assert json.loads(json.dumps(decision.to_dict(), allow_nan=False))["mean_drop"] is None


def test_finding_that_int8_loses_fails():
    decision = decide(np.array([0.9, 0.8, nan]), np.array([0.9, nan, nan]), FINDINGS, 1, 1)
    assert not decision.passed
    assert decision.reasons == ["Nodule: INT8 gives no AUROC, its scores are not finite"]


@pytest.mark.parametrize("bounds", [(nan, 1), (1, nan)])
def test_bound_that_is_nan_refuses(bounds):
    assert not decide(np.array([0.9, 0.8, 0.7]), np.array([0.9, 0.8, 0.7]), FINDINGS, *bounds).passed
