import numpy as np
import pytest
from cleanlab.count import estimate_joint
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from training.measures.label_noise import (
    LIMITS,
    RATES,
    Ranked,
    limiting_cuts,
    limits_at,
    measure_noise,
    rates_of,
    resample,
)
from training.measures.resampling import patient_weights


def toy(images: int = 4000, separation: float = 4.0, share: float = 0.3, seed: int = 0):
    """True labels, and the probabilities of a model that separates them well."""
    rng = np.random.default_rng(seed)
    truth = rng.random(images) < share
    return truth, expit(separation * (2 * truth - 1) + rng.normal(size=images))


def flipped(truth: np.ndarray, of_present: float, of_absent: float, seed: int = 1):
    wrong = np.random.default_rng(seed).random(len(truth)) < np.where(truth, of_present, of_absent)
    return truth ^ wrong, wrong


def test_planted_flips_are_found_and_come_first():
    truth, probabilities = toy()
    labels, wrong = flipped(truth, 0.1, 0.03)
    found = measure_noise(labels, probabilities, np.arange(len(labels)), num_resamples=20, seed=0)
    assert wrong[found.suspects[: wrong.sum()]].mean() > 0.97
    assert wrong[found.suspects].sum() > 0.75 * wrong.sum()
    quality = np.where(labels, probabilities, 1 - probabilities)[found.suspects]
    assert (np.diff(quality) >= 0).all()


def test_the_rates_are_those_that_were_planted_and_their_intervals_hold_them():
    truth, probabilities = toy()
    labels, wrong = flipped(truth, 0.1, 0.03)
    found = measure_noise(labels, probabilities, np.arange(len(labels)), num_resamples=200, seed=0)
    true_rates = [wrong[labels].mean(), wrong[~labels].mean(), wrong[~truth].mean(), wrong[truth].mean()]
    assert found.values[:4] == pytest.approx(true_rates, abs=0.01)
    assert (found.low[:4] <= true_rates).all() and (true_rates <= found.high[:4]).all()
    assert (found.high - found.low < 0.08).all()
    limits = found.high[4:]
    assert (limits >= true_rates[:2]).all() and limits == pytest.approx(true_rates[:2], abs=0.02)


def test_labels_without_noise_have_no_suspects():
    truth, probabilities = toy(separation=9)
    found = measure_noise(truth, probabilities, np.arange(len(truth)), num_resamples=20, seed=0)
    assert not len(found.suspects)
    assert found.values == pytest.approx(np.zeros(len(RATES + LIMITS)))


def test_patients_with_many_images_widen_the_interval():
    truth, probabilities = toy(1000)
    labels, _ = flipped(truth, 0.1, 0.03)
    labels, probabilities = np.repeat(labels, 10), np.repeat(probabilities, 10)
    apart, together = (
        measure_noise(labels, probabilities, patients, num_resamples=200, seed=0)
        for patients in (np.arange(10_000), np.arange(10_000) // 10)
    )
    assert apart.values == pytest.approx(together.values)
    assert ((together.high - together.low)[:4] > 2 * (apart.high - apart.low)[:4]).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), separation=st.floats(0, 4), share=st.floats(0.05, 0.95), decimals=st.integers(1, 6))
def test_a_resample_is_counted_as_cleanlab_counts_it(seed, separation, share, decimals):
    """Also where images are confidently of both classes, of none, or tie."""
    truth, probabilities = toy(300, separation, share, seed)
    probabilities = probabilities.round(decimals)
    labels, _ = flipped(truth, 0.2, 0.2, seed)
    patients = np.arange(300) // 3
    weights = patient_weights(100, range(3), seed)[patients].astype(int)
    order = np.argsort(probabilities, kind="stable")
    ranked = Ranked(labels[order].astype(float), probabilities[order], patients[order], 100)
    joint, _ = resample(ranked, (1, 299), 3, seed)
    for column, times in enumerate(weights.T):
        drawn = np.repeat(np.arange(300), times)
        if len(set(labels[drawn])) < 2:
            assert np.isnan(joint[..., column]).all()
            continue
        chances = np.column_stack([1 - probabilities, probabilities])[drawn]
        # cleanlab rounds to whole images.
        expected = estimate_joint(labels[drawn].astype(int), chances) * len(drawn)
        np.testing.assert_allclose(joint[..., column] * len(drawn), expected, atol=1.01)


def test_rates_of_a_known_joint():
    joint = np.array([[80.0, 5.0], [3.0, 12.0]])[..., None]
    assert rates_of(joint)[:, 0] == pytest.approx([3 / 15, 5 / 85, 3 / 83, 5 / 17])
    assert np.isnan(rates_of(np.zeros((2, 2, 1)))).all()


def test_limits_are_small_where_the_confident_joint_takes_the_models_errors_for_noise():
    """Labels without noise, and a model that is certain of two thirds of the films and guesses at the others."""
    truth, probabilities = toy(20_000, separation=5.0)
    rng = np.random.default_rng(5)
    guessed = np.where(rng.random(len(truth)) < 1 / 3, rng.random(len(truth)) * 0.98 + 0.01, probabilities)
    found = measure_noise(truth, guessed, np.arange(len(truth)), num_resamples=100, seed=0)
    assert (found.values[:2] > 0.03).all()
    assert (found.high[4:] < found.values[:2] / 3).all()


def ranked(present: list[int], probabilities=None) -> Ranked:
    probabilities = np.arange(len(present)) / len(present) if probabilities is None else probabilities
    return Ranked(np.array(present, float), np.array(probabilities, float), np.arange(len(present)), len(present))


@pytest.mark.parametrize(
    ("present", "limits"),
    [
        # Below the third image there is no present label, above the fifth no absent one.
        ([0, 0, 0, 1, 0, 1, 1, 1], [0, 0]),
        # Below the fourth image, 1 of 4 present and 3 of 4 absent labels; above it, 3 and 1.
        ([1, 0, 0, 0, 1, 1, 1, 0], [1 / 3, 1 / 3]),
        ([1, 1, 0, 0], [1, 1]),
    ],
)
def test_limits_are_the_smallest_ratios_at_the_ends_of_the_ranking(present, limits):
    toy_ranking = ranked(present)
    cuts = limiting_cuts(toy_ranking)
    assert limits_at(toy_ranking, cuts, np.ones(len(present))) == pytest.approx(limits)


def test_a_cut_does_not_part_equal_probabilities():
    tied = ranked([0, 0, 0, 1, 0, 1, 1, 1], [0.5] * 8)
    assert limits_at(tied, limiting_cuts(tied), np.ones(8)) == pytest.approx([1, 1])


def test_limits_of_a_resample_count_each_image_as_often_as_it_is_drawn():
    once, twice = ranked([1, 0, 0, 0, 1, 1, 1, 0]), ranked([1, 1, 0, 0, 0, 1, 1, 1, 0])
    times = np.array([2, 1, 1, 1, 1, 1, 1, 1])
    assert limits_at(once, (4, 4), times) == pytest.approx(limits_at(twice, (5, 5), np.ones(9)))


def test_few_patients_leave_a_larger_share_possible_than_none():
    """20 of 40 patients are labelled present, and a perfect model contradicts none of them."""
    truth = np.arange(40) < 20
    found = measure_noise(truth, truth * 0.9 + 0.05, np.arange(40), num_resamples=20, seed=0)
    assert found.values[4:] == pytest.approx([0, 0])
    assert found.high[4:] == pytest.approx([3 / 20, 3 / 20])


def test_a_single_patient_has_no_interval():
    truth, probabilities = toy(100)
    found = measure_noise(truth, probabilities, ["one"] * 100, num_resamples=10, seed=0)
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()
    assert not np.isnan(found.values).any()


@pytest.mark.parametrize(
    ("present", "probabilities", "message"),
    [
        (np.ones(3, bool), np.full(3, 0.5), "all 3 labels are True"),
        (np.zeros(3, bool), np.full(3, 0.5), "all 3 labels are False"),
        (np.array([True, False]), np.array([0.5, 1.5]), "not between 0 and 1"),
        (np.array([True, False]), np.array([0.5, np.nan]), "not between 0 and 1"),
    ],
)
def test_unusable_labels_and_probabilities_are_refused(present, probabilities, message):
    with pytest.raises(ValueError, match=message):
        measure_noise(present, probabilities, range(len(present)), num_resamples=2, seed=0)
