import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from training.measures import resampling
from training.measures.intervals import (
    bootstrap_areas,
    bootstrap_contrast,
    bootstrap_differences,
    bootstrap_means,
    differences_to,
)
from training.measures.metrics import auroc_per_finding, average_precision_per_finding, mean_over_findings
from training.measures.resampling import patient_weights, rank_finding, weighted_areas


def make_predictions(seed, num_patients=40, images_per_patient=1, distance=1.0, num_findings=2, cloned=False):
    """Labels per patient and normal scores; if `cloned`, all images of a patient are copies of one."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_patients, num_findings)) < 0.4).astype(float)
    labels[:2] = [[0], [1]]
    noise = rng.normal(size=(num_patients, images_per_patient, num_findings))
    if cloned:
        noise[:] = noise[:, :1]
    scores = noise + distance * labels[:, None]
    patients = np.repeat(np.arange(num_patients), images_per_patient)
    return labels[patients], scores.reshape(-1, num_findings), patients


@settings(max_examples=40)
@given(
    labels=st_np.arrays(np.float64, 20, elements=st.sampled_from([0.0, 1.0])),
    scores=st_np.arrays(np.float32, 20, elements=st.integers(-3, 3) | st.floats(-1, 1, width=32)),
    patients=st_np.arrays(np.int64, 20, elements=st.integers(0, 5)),
    seed=st.integers(0, 1000),
)
def test_a_weighted_resample_matches_scikit_learn_on_the_images_drawn(labels, scores, patients, seed):
    weights = patient_weights(6, range(4), seed)
    assert (weights.sum(axis=0) == 6).all()
    measured = weighted_areas(rank_finding(labels == 1, scores, patients, 6), weights)
    for column in range(4):
        drawn = np.repeat(np.arange(20), weights[patients, column].astype(int))
        truth = labels[drawn]
        if 0 < truth.sum() < len(truth):
            expected = roc_auc_score(truth, scores[drawn]), average_precision_score(truth, scores[drawn])
            np.testing.assert_allclose(measured[:, column], expected, rtol=0, atol=1e-9)
        else:
            assert np.isnan(measured[:, column]).all()


def test_an_interval_is_the_percentiles_of_resamples_that_take_all_images_of_a_patient():
    labels, scores, patients = make_predictions(0, images_per_patient=3, num_findings=3)
    labels[5:12, 0] = np.nan
    names = np.array([f"patient {patient}" for patient in patients])
    areas = bootstrap_areas(labels, scores, names, num_resamples=50, seed=3)
    weights = patient_weights(40, range(50), 3)[np.unique(names, return_inverse=True)[1]].astype(int)
    for interval, measure in (
        (areas.auroc, auroc_per_finding),
        (areas.average_precision, average_precision_per_finding),
    ):
        drawn = [np.repeat(np.arange(120), weights[:, resample]) for resample in range(50)]
        values = np.array([measure(labels[rows], scores[rows]) for rows in drawn])
        with_means = np.column_stack([values, values.mean(axis=1)])
        np.testing.assert_allclose([interval.low, interval.high], np.percentile(with_means, [2.5, 97.5], axis=0))
        on_all = measure(labels, scores)
        np.testing.assert_allclose(interval.values, [*on_all, mean_over_findings(on_all)], atol=1e-12)
        assert (interval.num_resamples == 50).all()


def test_the_seed_alone_decides_and_neither_blocks_nor_threads(monkeypatch):
    labels, scores, patients = make_predictions(0)
    first = bootstrap_areas(labels, scores, patients, num_resamples=30, seed=1)
    other_seed = bootstrap_areas(labels, scores, patients, num_resamples=30, seed=2)
    assert not np.array_equal(first.auroc.low, other_seed.auroc.low)
    monkeypatch.setattr(resampling, "BLOCK_CELLS", 300)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    again = bootstrap_areas(labels, scores, patients, num_resamples=30, seed=1)
    for name in ("values", "low", "high", "num_resamples"):
        np.testing.assert_array_equal(getattr(again.auroc, name), getattr(first.auroc, name))


def test_resamples_without_a_finding_are_left_out_and_the_mean_takes_the_other_findings():
    labels = np.zeros((30, 3))
    labels[::2, 0] = labels[:2, 1] = 1
    scores = np.random.default_rng(0).normal(size=labels.shape)
    auroc = bootstrap_areas(labels, scores, np.arange(30), num_resamples=200, seed=0).auroc
    weights = patient_weights(30, range(200), 0)
    assert auroc.num_resamples.tolist() == [200, (weights[:2].sum(axis=0) > 0).sum(), 0, 200]
    assert 150 < auroc.num_resamples[1] < 200
    assert np.isnan([auroc.values[2], auroc.low[2], auroc.high[2]]).all()
    assert auroc.values[3] == pytest.approx(auroc.values[:2].mean())
    assert (auroc.low <= auroc.high)[[0, 1, 3]].all()


def test_the_positives_of_a_single_patient_give_no_interval():
    labels, scores, _ = make_predictions(0, num_findings=1)
    auroc = bootstrap_areas(labels, scores, 1 - labels[:, 0], num_resamples=50, seed=0).auroc
    assert not np.isnan(auroc.values).any()
    assert np.isnan([auroc.low, auroc.high]).all()


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    truth = norm.cdf(1 / math.sqrt(2))
    covered = 0
    for seed in range(60):
        labels, scores, patients = make_predictions(seed, num_patients=60, num_findings=1)
        auroc = bootstrap_areas(labels, scores, patients, num_resamples=100, seed=seed).auroc
        covered += auroc.low[0] <= truth <= auroc.high[0]
    # The seeds are fixed. With so few patients the interval is a little narrow; half the width would cover about 40.
    assert 52 <= covered <= 60


def test_images_of_one_patient_widen_the_interval():
    labels, scores, patients = make_predictions(0, images_per_patient=4, cloned=True)
    widths = []
    for units in (patients, np.arange(len(patients))):
        for interval in vars(bootstrap_areas(labels, scores, units, num_resamples=200, seed=0)).values():
            widths.append(interval.high - interval.low)
    by_patient, by_image = np.array(widths[:2]), np.array(widths[2:])
    # With four copies of everything, an interval over images is half as wide as it should be.
    np.testing.assert_allclose(by_patient / by_image, 2, rtol=0.3)


def test_differences_are_paired():
    labels, before, patients = make_predictions(0, num_patients=80)
    rng = np.random.default_rng(1)
    noisy = before + 0.01 * rng.normal(size=before.shape)
    options = {"num_resamples": 100, "seed": 0}
    alone = bootstrap_areas(labels, before, patients, **options)
    change = bootstrap_differences(labels, before, noisy, patients, **options)
    assert str(differences_to(labels, before, [before, noisy], patients, **options)[1]) == str(change)
    quick = differences_to(labels, before, [noisy], patients, **options, precision=False)[0]
    assert str(quick.auroc) == str(change.auroc) and np.isnan(quick.average_precision.values).all()
    worse = bootstrap_differences(labels, before, rng.normal(size=before.shape), patients, **options)
    for name, measure in (("auroc", auroc_per_finding), ("average_precision", average_precision_per_finding)):
        single, paired = getattr(alone, name), getattr(change, name)
        expected = measure(labels, noisy) - measure(labels, before)
        np.testing.assert_allclose(paired.values, [*expected, expected.mean()], atol=1e-12)
        assert ((paired.high - paired.low) < 0.2 * (single.high - single.low)).all()
        assert (getattr(worse, name).high < 0).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 100))
def test_rescaling_the_scores_changes_nothing(seed):
    labels, scores, patients = make_predictions(seed)
    change = bootstrap_differences(labels, scores, np.exp(scores), patients, num_resamples=20, seed=seed)
    for interval in vars(change).values():
        np.testing.assert_array_equal([interval.values, interval.low, interval.high], np.zeros((3, 3)))


def test_invalid_input_is_refused():
    labels, scores, patients = make_predictions(0)
    with pytest.raises(ValueError, match="39 patients for 40 images"):
        bootstrap_areas(labels, scores, patients[1:], num_resamples=10, seed=0)
    with pytest.raises(ValueError, match="num_resamples is 0"):
        bootstrap_areas(labels, scores, patients, num_resamples=0, seed=0)
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_differences(labels, scores, scores * np.nan, patients, num_resamples=10, seed=0)


def test_the_interval_of_a_mean_is_the_percentiles_of_resamples_that_take_all_images_of_a_patient():
    rng = np.random.default_rng(0)
    values, patients = rng.random((90, 2)) < [0.3, 0.9], rng.integers(0, 20, 90)
    means, low, high = bootstrap_means(values, patients, num_resamples=300, seed=5)
    weights = patient_weights(20, range(300), 5)[np.unique(patients, return_inverse=True)[1]].astype(int)
    drawn = np.stack([np.repeat(values, weights[:, column], axis=0).mean(axis=0) for column in range(300)])
    np.testing.assert_allclose(means, values.mean(axis=0))
    np.testing.assert_allclose([low, high], np.percentile(drawn, [2.5, 97.5], axis=0))
    assert np.isnan(bootstrap_means(values, np.zeros(90), num_resamples=10, seed=0)[1]).all()


def test_two_sets_of_images_contrast_as_their_areas_and_as_independent_samples():
    near, far = make_predictions(1, num_patients=80, distance=2.0), make_predictions(2, num_patients=60, distance=0.5)
    options = {"num_resamples": 400, "seed": 3}
    contrast = bootstrap_contrast(near, far, **options).auroc
    before, after = (bootstrap_areas(*made, **options).auroc for made in (near, far))
    np.testing.assert_allclose(contrast.values, after.values - before.values, atol=1e-12)
    assert (contrast.values < 0).all() and (contrast.low < contrast.values).all()
    assert (contrast.high > contrast.values).all()
    # Variances of independent samples add up.
    widths = [each.high - each.low for each in (before, after)]
    np.testing.assert_allclose(contrast.high - contrast.low, np.hypot(*widths), rtol=0.25)


def test_the_mean_contrast_is_over_the_findings_that_both_sets_define():
    near, far = make_predictions(1, num_findings=3), make_predictions(2, num_findings=3)
    near[0][:, 0], far[0][:, 2] = np.nan, np.nan
    contrast = bootstrap_contrast(near, far, num_resamples=50, seed=0).auroc
    assert np.isnan(contrast.values[[0, 2]]).all() and np.isnan(contrast.low[[0, 2]]).all()
    assert contrast.values[1] == contrast.values[3]
