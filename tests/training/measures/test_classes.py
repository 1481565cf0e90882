"""Classes of a softmax on toy arrays."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax

from training.loop.loss import log_odds
from training.measures.calibration import fit_calibration, fit_temperatures
from training.measures.classes import class_log_odds, fit_class_temperature, soft_classes, with_temperature

EYE = np.eye(3, dtype=np.float32)


def make_classes(temperature: float, num_images: int = 20_000):
    """Classes drawn with the probabilities that the logits have once they are divided by the temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (num_images, 3))
    drawn = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((num_images, 1))).sum(axis=1)
    return EYE[drawn], (logits * temperature).astype(np.float32)


def test_log_odds_are_those_of_the_training_and_stay_finite_where_the_softmax_rounds():
    _, logits = make_classes(1, 50)
    np.testing.assert_allclose(class_log_odds(logits), log_odds(torch.from_numpy(logits)), rtol=1e-4)
    np.testing.assert_allclose(expit(class_log_odds(logits)), softmax(logits, axis=1), rtol=1e-5)
    sure = class_log_odds(np.array([[900.0, 0, -900]]))
    np.testing.assert_allclose(sure, [[900, -900, -1800]])
    np.testing.assert_allclose(with_temperature(sure, 3), [[300, -300, -600]])


@pytest.mark.parametrize("temperature", [0.5, 3])
def test_the_temperature_that_multiplied_the_logits_is_found_and_keeps_the_sum(temperature):
    labels, logits = make_classes(temperature)
    calibration = fit_calibration(labels, class_log_odds(logits), np.ones(3), exclusive=True)
    np.testing.assert_allclose(calibration.temperatures, temperature, rtol=0.05)
    probabilities = calibration.probabilities(class_log_odds(logits))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(probabilities, softmax(logits / calibration.temperatures[0], axis=1), atol=1e-6)
    # As many films are called at the threshold as there are calibrated probabilities of the threshold or more.
    thresholds = calibration.threshold_probabilities["sensitivity_0.9"]
    called = probabilities >= thresholds - 1e-12
    np.testing.assert_allclose((called & (labels == 1)).sum(axis=0) / labels.sum(axis=0), 0.9, atol=1e-3)


def test_two_classes_are_calibrated_as_a_finding_and_its_absence():
    rng = np.random.default_rng(1)
    present = rng.random(400) < 0.2
    own = (rng.normal(size=400) + 2 * present).astype(np.float32)[:, None]
    labels = present[:, None].astype(np.float32)
    both = np.column_stack([labels, 1 - labels]), np.column_stack([own, -own])
    assert fit_class_temperature(*both, 100.0) == pytest.approx(fit_temperatures(labels, own)[0], rel=1e-4)
    num = present.sum()
    np.testing.assert_allclose(soft_classes(both[0])[present.argmax()], [(num + 1) / (num + 2), 1 / (num + 2)])


def test_a_single_class_keeps_its_logits_and_other_labels_are_refused():
    labels = EYE[[1, 1]]
    assert fit_class_temperature(labels, logit(np.full((2, 3), 1 / 3)), 100.0) == 1
    for wrong in (EYE[[0, 1]] * 0, EYE[[0, 1]] + EYE[[1, 1]], EYE[[0, 1]] * np.nan):
        with pytest.raises(ValueError, match="no class, or more than one|a label is 2|exactly one"):
            fit_class_temperature(wrong, np.zeros((2, 3)), 100.0)
