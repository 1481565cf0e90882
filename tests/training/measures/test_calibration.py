import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from scipy.special import expit
from sklearn.metrics import log_loss

from training.measures.calibration import bin_reliability, fit_temperatures
from training.measures.thresholds import measure_thresholds, sensitivity_thresholds, youden_thresholds

LABELS = st_np.arrays(np.float64, (15, 2), elements=st.sampled_from([0.0, 1.0, np.nan]))
SCORES = st_np.arrays(np.float32, (15, 2), elements=st.integers(0, 8).map(lambda eighths: eighths / 8))


def make_logits(temperatures, num_images=20_000):
    """Labels drawn with the probabilities that the logits have once they are divided by the temperatures."""
    rng = np.random.default_rng(0)
    true_logits = rng.normal(-1, 1.5, (num_images, len(temperatures)))
    labels = (rng.random(true_logits.shape) < expit(true_logits)).astype(np.float32)
    return labels, (true_logits * temperatures).astype(np.float32)


def test_the_temperature_that_multiplied_the_logits_is_found():
    labels, logits = make_logits([0.5, 1, 3])
    labels[::7] = np.nan
    temperatures = fit_temperatures(labels, logits)
    np.testing.assert_allclose(temperatures, [0.5, 1, 3], rtol=0.05)
    known = ~np.isnan(labels[:, 0])
    for column in range(3):
        losses = [
            log_loss(labels[known, column], expit(logits / (temperatures * factor))[known, column])
            for factor in (0.99, 1, 1.01)
        ]
        assert losses[1] == min(losses)


def test_calibration_error_is_gone_after_the_temperature():
    labels, logits = make_logits([3, 0.4])
    temperatures = fit_temperatures(labels, logits)
    before, after = (
        bin_reliability(labels, expit(logits / scale), 15).expected_calibration_error
        for scale in (np.ones(2), temperatures)
    )
    assert (before > 0.05).all()
    assert (after < 0.015).all()


def test_a_finding_without_both_classes_keeps_its_logits():
    labels = np.array([[0, 1, np.nan], [0, 1, np.nan], [0, np.nan, np.nan]])
    logits = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(fit_temperatures(labels, logits), 1)


def test_logits_that_order_the_wrong_way_round_reach_the_bound():
    labels = np.array([[0], [1.0]])
    np.testing.assert_allclose(fit_temperatures(labels, np.array([[1], [-1.0]])), 100, rtol=0.01)


def test_a_few_positives_that_the_logits_part_from_the_rest_keep_other_images_in_order():
    labels = np.repeat([[1.0], [0.0]], [8, 143], axis=0)
    logits = np.where(labels == 1, 1.0, -1.0) * np.linspace(0.5, 4, len(labels))[:, None]
    probabilities = expit(logits / fit_temperatures(labels, logits)).astype(np.float32)
    assert 0.8 < probabilities[labels == 1].mean() < 0.95
    others = expit(np.linspace(-4, 4, 50)[:, None] / fit_temperatures(labels, logits)).astype(np.float32)
    assert len(np.unique(others)) == 50


def test_reliability_by_hand():
    labels = np.array([[0, 0, np.nan], [1, 0, np.nan], [1, 1, np.nan], [np.nan, 1, np.nan]])
    probabilities = np.array([[0.1, 0.0, 0.2], [0.3, 0.5, 0.2], [1.0, 0.5, 0.2], [0.9, 0.75, 0.2]])
    reliability = bin_reliability(labels, probabilities, 2)
    np.testing.assert_array_equal(reliability.num_images, [[2, 1], [1, 3], [0, 0]])
    np.testing.assert_allclose(reliability.predicted, [[0.2, 1], [0, 1.75 / 3], [np.nan, np.nan]])
    np.testing.assert_allclose(reliability.observed, [[0.5, 1], [0, 2 / 3], [np.nan, np.nan]])
    errors = reliability.expected_calibration_error
    np.testing.assert_allclose(errors, [0.3 * 2 / 3, 0.25 / 3 * 3 / 4, np.nan])


@settings(max_examples=40)
@given(LABELS, SCORES, st.integers(1, 20))
def test_bins_lose_no_image_and_one_bin_compares_the_means(labels, probabilities, num_bins):
    reliability = bin_reliability(labels, probabilities, num_bins)
    known = ~np.isnan(labels)
    np.testing.assert_array_equal(reliability.num_images.sum(axis=1), known.sum(axis=0))
    filled = reliability.num_images > 0
    lower = np.broadcast_to(np.arange(num_bins) / num_bins, filled.shape)[filled]
    assert (reliability.predicted[filled] >= lower - 1e-6).all()
    assert (reliability.predicted[filled] <= lower + 1 / num_bins + 1e-6).all()
    error = reliability.expected_calibration_error
    for column in np.flatnonzero(known.any(axis=0)):
        cells = known[:, column]
        bias = abs(labels[cells, column].mean() - probabilities[cells, column].mean(dtype=np.float64))
        assert error[column] >= bias - 1e-9
        if num_bins == 1:
            assert error[column] == pytest.approx(bias)
    np.testing.assert_array_equal(np.isnan(error), ~known.any(axis=0))


@settings(max_examples=40)
@given(LABELS, SCORES, st.sampled_from([0.1, 0.5, 0.9, 0.95, 1.0]))
def test_thresholds_are_the_best_of_all_scores(labels, scores, sensitivity):
    youden = youden_thresholds(labels, scores)
    sensitive = sensitivity_thresholds(labels, scores, sensitivity)
    for column in range(2):
        truth = labels[:, [column]]
        known = scores[~np.isnan(truth[:, 0]), column]
        candidates = sorted(set(known.tolist()), reverse=True)
        points = [measure_thresholds(truth, scores[:, [column]], np.array([cut])) for cut in candidates]
        if (truth == 1).any():
            reached = [cut for cut, p in zip(candidates, points, strict=True) if p.sensitivity[0] >= sensitivity]
            assert sensitive[column] == reached[0]
        else:
            assert np.isnan(sensitive[column])
        if (truth == 1).any() and (truth == 0).any():
            gains = [round(float(p.sensitivity[0] + p.specificity[0]), 9) for p in points]
            assert youden[column] == candidates[int(np.argmax(gains))]
        else:
            assert np.isnan(youden[column])


@settings(max_examples=40)
@given(LABELS, SCORES, st.integers(0, 16).map(lambda sixteenths: sixteenths / 16))
def test_operating_points_are_ratios_of_the_confusion_matrix(labels, scores, cut):
    points = measure_thresholds(labels, scores, np.array([cut, np.nan]))
    cells = list(zip(labels[:, 0], scores[:, 0] >= cut, strict=True))
    tp, fp, fn, tn = (cells.count(cell) for cell in ((1, True), (0, True), (1, False), (0, False)))
    for name, right, wrong in (("sensitivity", tp, fn), ("specificity", tn, fp), ("ppv", tp, fp), ("npv", tn, fn)):
        first, second = getattr(points, name)
        assert first == right / (right + wrong) if right + wrong else np.isnan(first)
        assert np.isnan(second)


def test_the_threshold_of_the_youden_index_by_hand():
    labels = np.array([[0], [0], [0], [1], [1], [1.0]])
    scores = np.array([[0.1], [0.2], [0.7], [0.3], [0.6], [0.9]])
    assert youden_thresholds(labels, scores)[0] == 0.3
    assert sensitivity_thresholds(labels, scores, 0.5)[0] == 0.6


def test_invalid_input_is_refused():
    labels = np.array([[0.0], [1.0]])
    with pytest.raises(ValueError, match=r"-2\.0.*not logits"):
        bin_reliability(labels, np.array([[0.5], [-2.0]]), 10)
    with pytest.raises(ValueError, match="num_bins is 0"):
        bin_reliability(labels, labels, 0)
    with pytest.raises(ValueError, match="sensitivity is 90"):
        sensitivity_thresholds(labels, labels, 90)
    with pytest.raises(ValueError, match=r"\(2,\).*\(1,\)"):
        measure_thresholds(labels, labels, np.zeros(2))
