import json
from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm

from inference.candidate.gate import (
    FEW_PATIENTS,
    Decision,
    compare_with_champion,
    decide,
    decide_at_best,
    next_step,
    no_difference,
    overrun,
    refuse,
)
from training.measures.intervals import Intervals, bootstrap_areas, bootstrap_differences

FINDINGS = ["Mass", "Nodule", "Hernia"]
MANY = [100, 100, 100]
auroc = st.floats(0, 1) | st.just(nan)
three = st.lists(auroc, min_size=3, max_size=3).map(np.array)
bound = st.floats(0, 1)
widths = st.floats(0, 0.2)


def intervals(values, width: float = 0.01) -> Intervals:
    """Intervals of AUROCs, or of their differences, with the mean last."""
    values = np.array(values, np.float64)
    defined = values[~np.isnan(values)]
    values = np.append(values, defined.mean() if len(defined) else nan)
    return Intervals(values, values - width, values + width, np.full(len(values), 1000))


def judge(fp32, int8, max_mean_drop=0.1, max_finding_drop=0.02, width=0.0) -> Decision:
    fp32, int8 = np.array(fp32), np.array(int8)
    difference = intervals(int8 - fp32, width)
    return decide(FINDINGS, intervals(fp32), intervals(int8), difference, max_mean_drop, max_finding_drop, MANY)


@given(three, three, bound, bound, widths)
def test_never_passes_what_a_bound_forbids(fp32, int8, max_mean_drop, max_finding_drop, width):
    decision = judge(fp32, int8, max_mean_drop, max_finding_drop, width)
    drops = (fp32 - int8)[~np.isnan(fp32)]
    if decision.passed:
        assert len(drops)
        assert not np.isnan(drops).any()
        assert drops.max() + width <= max_finding_drop + 1e-12
        assert drops.mean() + width <= max_mean_drop + 1e-12
        assert int8[~np.isnan(int8)].mean() > 0.5
    else:
        assert decision.reasons


@given(three, bound, bound)
def test_passes_a_model_that_loses_nothing_and_beats_chance(fp32, max_mean_drop, max_finding_drop):
    fp32 = 0.52 + 0.48 * fp32
    assume(not np.isnan(fp32).all())
    assert judge(fp32, fp32, max_mean_drop, max_finding_drop).passed


@given(three, three)
def test_undefined_findings_are_listed_and_never_compared(fp32, int8):
    decision = judge(fp32, int8, 1, 1)
    assert decision.undefined == [f for f, value in zip(FINDINGS, fp32, strict=True) if isnan(value)]
    assert not set(decision.undefined) & set(decision.drops)


def test_reason_names_finding_drop_and_bound():
    decision = judge([0.9, 0.8, 0.7], [0.9, 0.8, 0.65])
    assert not decision.passed
    assert decision.quantisation_costs
    assert decision.reasons == [
        "Hernia: AUROC falls by 0.0500 (up to 0.0500), but at most 0.02 is allowed (inference.max_finding_drop)"
    ]


def test_a_drop_that_the_interval_does_not_rule_out_fails():
    assert judge([0.9, 0.8, 0.7], [0.9, 0.8, 0.69], width=0.009).passed
    decision = judge([0.9, 0.8, 0.7], [0.9, 0.8, 0.69], width=0.011)
    assert not decision.passed
    assert "Hernia: AUROC falls by 0.0100 (up to 0.0210)" in decision.reasons[0]


def test_a_finding_of_few_patients_is_named():
    difference = intervals([0, 0, -0.01], 0.005)
    difference.low[2] = difference.high[2] = nan
    counts = [FEW_PATIENTS, FEW_PATIENTS - 1, 1]
    decision = decide(FINDINGS, intervals([0.9] * 3), intervals([0.9, 0.9, 0.89]), difference, 0.1, 0.02, counts)
    assert decision.passed
    assert decision.few_patients == ["Nodule", "Hernia"]
    # Without an interval, only its drop counts.
    assert decision.drops["Hernia"].worst == pytest.approx(0.01)


def test_a_test_split_without_any_interval_shows_nothing():
    same = intervals([0.9] * 3)
    difference = intervals([0, 0, 0], nan)
    decision = decide(FINDINGS, same, same, difference, 0.1, 0.02, [1, 1, 1])
    assert not decision.passed
    assert decision.reasons == ["the test split shows nothing: no finding has two patients with it and two without it"]


@pytest.mark.parametrize(("patients", "is_few"), [(2, True), (FEW_PATIENTS, False)])
def test_few_patients_let_a_clear_loss_pass_more_than_once_in_twenty(patients, is_few):
    random, passed = np.random.default_rng(0), 0
    labels = np.repeat([[1.0], [0.0]], [patients, 200], axis=0).astype(np.float32)
    # Normal scores with an AUROC of 0.85, which added noise lowers to 0.78.
    shift, less = (norm.ppf(auroc) * 2**0.5 for auroc in (0.85, 0.78))
    noise = ((shift / less) ** 2 - 1) ** 0.5
    for seed in range(100):
        before = random.normal(size=labels.shape) + shift * labels
        after = before + noise * random.normal(size=labels.shape)
        drops = bootstrap_differences(labels, before, after, range(len(labels)), num_resamples=100, seed=seed).auroc
        passed += overrun(drops, max_mean_drop=0.02, max_finding_drop=0.02) <= 0
    assert (passed > 5) == is_few


@given(three, three, bound, bound, widths)
def test_overrun_is_what_the_gate_refuses(fp32, int8, max_mean_drop, max_finding_drop, width):
    difference = intervals(np.array(int8) - np.array(fp32), width)
    assume(not np.isnan(difference.values).all())
    reasons = judge(fp32, int8, max_mean_drop, max_finding_drop, width).reasons
    falls = any("falls by" in reason and "inference.max" in reason for reason in reasons)
    assert (overrun(difference, max_mean_drop, max_finding_drop) > 0) == falls


def test_small_drops_everywhere_fail_the_mean():
    decision = judge([0.9, 0.8, 0.7], [0.89, 0.79, 0.69], 0.005)
    assert not decision.passed
    assert "mean AUROC falls by 0.0100" in decision.reasons[0]


def test_gain_of_one_finding_does_not_hide_the_loss_of_another():
    assert not judge([0.9, 0.8, 0.7], [0.8, 0.9, 0.7], 0.005).passed


def test_a_model_that_knows_nothing_fails_though_it_loses_nothing():
    decision = judge([0.5, 0.51, 0.5], [0.5, 0.51, 0.5])
    assert not decision.passed
    assert not decision.quantisation_costs
    assert "chance is 0.5" in decision.reasons[0]


def test_nothing_measured_does_not_pass():
    decision = judge([nan] * 3, [nan] * 3, 1, 1)
    assert not decision.passed
    assert "nothing measured" in decision.reasons[0]
    assert decision.undefined == FINDINGS
    assert json.loads(json.dumps(decision.to_dict(), allow_nan=False))["mean_drop"] is None


def test_finding_that_int8_loses_fails():
    decision = judge([0.9, 0.8, nan], [0.9, nan, nan], 1, 1)
    assert not decision.passed
    assert decision.reasons == ["Nodule: INT8 gives no AUROC because its scores are not finite"]


@pytest.mark.parametrize("bounds", [(nan, 1), (1, nan)])
def test_bound_that_is_nan_refuses(bounds):
    assert not judge([0.9, 0.8, 0.7], [0.9, 0.8, 0.7], *bounds).passed


@pytest.mark.parametrize(
    ("gain", "width", "passes"),
    [(0.01, 0.001, True), (0, 0, True), (-0.004, 0.01, True), (-0.006, 0.01, False), (-0.004, 0.001, False)],
)
def test_a_model_clearly_below_the_champion_fails(gain, width, passes):
    decision = judge([0.9, 0.8, 0.7], [0.9, 0.8, 0.7])
    compared = compare_with_champion(decision, intervals([gain] * 3, width), 7, max_mean_drop=0.005)
    assert compared.passed == passes
    assert compared.champion_drop.value == pytest.approx(-gain)
    assert "champion" in compared.reasons[-1]
    assert "version 7" in compared.reasons[-1]


def test_a_refusal_keeps_the_reasons_against_and_drops_those_for():
    good, bad = judge([0.9] * 3, [0.9] * 3), judge([0.9] * 3, [0.5] * 3)
    assert refuse(good, "no").reasons == ["no"]
    assert refuse(bad, "no").reasons == [*bad.reasons, "no"]
    assert not refuse(good, "no").passed
    assert not compare_with_champion(bad, intervals([0.1] * 3), 7, 0.005).passed


def test_a_larger_drop_is_advised_only_where_it_helps():
    assert "allow a larger drop" in next_step(judge([0.9, 0.8, 0.7], [0.9, 0.8, 0.6]))
    at_chance = judge([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    below_too = judge([0.6, 0.5, 0.5], [0.5, 0.5, 0.5])
    too_few = judge([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], width=nan)
    nothing = judge([nan] * 3, [nan] * 3)
    worse = refuse(judge([0.9, 0.9, 0.9], [0.9, 0.9, 0.9]), "mean AUROC is far below the champion's")
    for decision in (at_chance, below_too, too_few, nothing, worse):
        assert not decision.passed
        assert "larger drop" not in next_step(decision), decision.reasons
    assert "train longer" in next_step(at_chance) and "train longer" in next_step(below_too)
    assert "test on more patients" in next_step(too_few)
    assert "with and without a finding" in next_step(nothing)


@given(st.integers(0, 2**32 - 1), st.integers(4, 12))
def test_no_difference_is_what_the_bootstrap_finds_between_equal_scores(seed, num_images):
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, nan], (num_images, 3)).astype(np.float32)
    scores, patients = random.random(labels.shape), random.integers(0, 6, num_images)
    measured = bootstrap_areas(labels, scores, patients, num_resamples=20, seed=0).auroc
    expected = bootstrap_differences(labels, scores, scores, patients, num_resamples=20, seed=0).auroc
    for name in ("values", "low", "high"):
        np.testing.assert_array_equal(getattr(no_difference(measured), name), getattr(expected, name))


@given(three, three, bound, bound, widths)
def test_no_int8_graph_that_gains_nothing_passes_where_fp32s_own_scores_fail(
    fp32, int8, max_mean_drop, max_finding_drop, width
):
    at_best = decide_at_best(FINDINGS, intervals(fp32, width), max_mean_drop, max_finding_drop, MANY)
    int8 = np.minimum(fp32, int8)
    difference = intervals(int8 - fp32, width)
    args = max_mean_drop, max_finding_drop, MANY
    decision = decide(FINDINGS, intervals(fp32, width), intervals(int8, width), difference, *args)
    if decision.passed:
        assert at_best.passed


def test_at_best_a_model_at_chance_fails_with_its_numbers_and_not_for_quantising():
    decision = decide_at_best(FINDINGS, intervals([0.5, 0.51, 0.5], 0.02), 0.1, 0.02, MANY)
    assert not decision.passed and not decision.quantisation_costs
    (reason,) = decision.reasons
    assert "mean AUROC is 0.503, but its interval reaches down to 0.483" in reason


@pytest.mark.parametrize("out_of_time", [False, True])
def test_a_model_that_ran_out_of_time_is_told_to_take_more(out_of_time):
    decision = replace(judge([0.9, 0.8, 0.7], [0.9, 0.8, 0.65]), out_of_time=out_of_time)
    assert ("inference.max_minutes" in next_step(decision)) == out_of_time
