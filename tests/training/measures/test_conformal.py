"""Answers at an error rate: the guarantee on drawn patients, ties, clusters, and cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from scipy.stats import binom

from training.measures.conformal import (
    ABSENT,
    NO_ANSWER,
    PRESENT,
    UNSURE,
    answers_at,
    count_patients,
    fit_bounds,
    patients_needed,
    smallest_rate,
)
from training.measures.rates import bootstrap_answers

RATES = st.floats(0.02, 0.49)


def draw(rng: np.random.Generator, present: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and patients of one finding; a patient's films share most of what is random.

    present: (patients,) bool, who has it. Patients with one film score as if they had it less, so that a guarantee
    over films does not hold for them. steps: number of different probabilities, as of a quantised model; 0: all differ.
    """
    num_films = rng.choice([1, 20], len(present), p=[0.8, 0.2])
    patients = np.repeat(np.arange(len(present)), num_films)
    centres = np.where(present, 1.2, -1.2) * np.where(num_films == 1, 0.3, 1.5) + rng.normal(0, 1, len(present))
    logits = centres[patients] + rng.normal(0, 0.3, len(patients))
    probabilities = 1 / (1 + np.exp(-logits))
    probabilities = np.round(probabilities * steps) / steps if steps else probabilities
    return present[patients, None].astype(np.float32), probabilities[:, None], patients


@settings(max_examples=6, deadline=None)
@given(error_rate=st.sampled_from([0.05, 0.1, 0.2, 0.3]), steps=st.sampled_from([0, 12]), seed=st.integers(0, 99))
def test_a_film_of_a_new_patient_is_answered_wrongly_at_most_as_often_as_stated(error_rate, steps, seed):
    """Each trial draws a validation split and one film of a new patient, so that the number of errors is binomial."""
    rng, trials, who = np.random.default_rng(seed), 400, np.repeat([True, False], 40)
    for present, wrong in ((True, ABSENT), (False, PRESENT)):
        errors = 0
        for _ in range(trials):
            bounds = fit_bounds(*draw(rng, who, steps), error_rate)
            _, probabilities, _ = draw(rng, np.array([present]), steps)
            errors += answers_at(rng.choice(probabilities)[None], bounds)[0, 0] == wrong
        assert errors <= binom.ppf(1 - 1e-5, trials, error_rate)
        if not steps and error_rate < 0.2:
            # The two bounds do not cross here, and each is as fine as one of 40 patients.
            assert errors >= binom.ppf(1e-5, trials, error_rate - 1 / 41)


@pytest.mark.parametrize("num_patients", [3, 4, 19, 20])
def test_the_bounds_are_those_of_ranks_where_each_patient_has_one_film(num_patients):
    """A new score, exchangeable with n others, is among the k lowest of all with a chance of k / (n + 1)."""
    rng, error_rate = np.random.default_rng(0), 0.2
    positives, negatives = np.sort(rng.random(num_patients)), np.sort(rng.random(num_patients)) - 2
    labels = np.repeat([1.0, 0.0], num_patients)[:, None]
    scores = np.append(positives, negatives)[:, None]
    bounds = fit_bounds(labels, -scores if num_patients == 3 else scores, np.arange(2 * num_patients), error_rate)
    rank = int(error_rate * (num_patients + 1) + 1e-9)
    if rank == 0:
        assert (bounds.absent_below[0], bounds.present_above[0]) == (-np.inf, np.inf)
        return
    # All positives are above all negatives, so both bounds cross and become their mean.
    expected = (positives[rank - 1] + negatives[-rank]) / 2
    assert bounds.absent_below[0] == bounds.present_above[0] == pytest.approx(expected)
    flipped = fit_bounds(labels, -scores, np.arange(2 * num_patients), error_rate)
    assert (flipped.absent_below[0], flipped.present_above[0]) == (-positives[-rank], -negatives[rank - 1])


def test_a_patient_with_many_films_weighs_as_much_as_one_with_a_single_film():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((40, 1)), np.repeat([1.0, 0.0], 20)[:, None]
    one = fit_bounds(labels, scores, np.arange(40), 0.2)
    repeats = rng.integers(1, 9, 40)
    parts = (np.repeat(part, repeats, axis=0) for part in (labels, scores, np.arange(40)))
    many = fit_bounds(*parts, 0.2)
    assert (many.absent_below, many.present_above) == (one.absent_below, one.present_above)


@settings(max_examples=60, deadline=None)
@given(
    labels=st_np.arrays(np.float32, (24, 2), elements=st.sampled_from([0.0, 1.0, np.nan])),
    scores=st_np.arrays(np.float32, (24, 2), elements=st.integers(0, 4).map(lambda step: step / 4)),
    error_rate=RATES,
    order=st.permutations(range(24)),
)
def test_ties_order_and_unknown_labels(labels, scores, error_rate, order):
    """On the films themselves the errors stay within the rate, whatever ties; the order of the films is nothing."""
    patients = np.arange(24) // 2
    bounds = fit_bounds(labels, scores, patients, error_rate)
    other = fit_bounds(labels[order], scores[order], patients[order], error_rate)
    assert all((one == two).all() for one, two in zip(vars(bounds).values(), vars(other).values(), strict=True))
    assert (bounds.absent_below <= bounds.present_above).all()
    unknown = np.where(np.isnan(labels), np.float32(np.nan), scores)
    left_out = fit_bounds(labels, unknown, patients, error_rate)
    assert (left_out.absent_below == bounds.absent_below).all()
    answers = answers_at(scores, bounds)
    for value, wrong, counts in zip((1, 0), (ABSENT, PRESENT), count_patients(labels, patients), strict=True):
        for column in range(2):
            films = labels[:, column] == value
            of_patients = [answers[films & (patients == one), column] == wrong for one in np.unique(patients[films])]
            share = sum(part.mean() for part in of_patients) / (len(of_patients) + 1)
            assert share + 1 / (len(of_patients) + 1) <= error_rate + 1e-6 or share == 0
            bound = (bounds.absent_below, bounds.present_above)[1 - value][column]
            assert np.isfinite(bound) == (counts[column] >= patients_needed(error_rate))


@given(st.integers(2, 5000))
def test_the_number_of_patients_and_the_smallest_rate_agree(num_patients):
    assert patients_needed(smallest_rate(num_patients)) == num_patients
    assert patients_needed(smallest_rate(num_patients) * 0.9999) > num_patients


def test_shares_of_errors_and_of_unsure_films_by_hand():
    labels = np.array([[1, 1, 1, 1, 0, 0, np.nan, 0]]).T
    answers = np.array([[ABSENT, PRESENT, UNSURE, NO_ANSWER, PRESENT, ABSENT, UNSURE, NO_ANSWER]]).T
    rates = bootstrap_answers(labels, answers, np.arange(8), num_resamples=200, seed=0)
    assert rates.present_answered_absent.value == 1 / 4 and rates.absent_answered_present.value == 1 / 3
    assert rates.unsure.value == 2 / 8
    # The first three are films of one patient; the others have one each.
    patients = np.maximum(np.arange(8), 2)
    rates = bootstrap_answers(labels, answers, patients, num_resamples=200, seed=0)
    assert rates.present_answered_absent.value == pytest.approx(1 / 3 / 2)
    assert (rates.absent_answered_present.value, rates.unsure.value) == (1 / 3, 2 / 8)
    for share in vars(rates).values():
        assert 0 <= share.low[0] < share.value[0] < share.high[0] <= 1


def test_a_number_that_is_none_is_unsure():
    bounds = fit_bounds(np.array([[1, 0] * 9]).T, np.array([[0.6, 0.4] * 9]).T, np.arange(18), 0.2)
    assert answers_at(np.array([[np.nan], [0.6], [0.4]]), bounds).ravel().tolist() == [UNSURE, PRESENT, ABSENT]
