"""Classes, of which each image has exactly one: a softmax says how likely each is. Plain arrays, no files.

Predictions hold the log-odds of that softmax, log(p / (1 - p)), so that a class can be measured like a finding. Their
log_expit is the logarithm of the probability, and with it again logits of the same softmax.
"""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, logsumexp

from training.measures.metrics import check_classes


def class_log_odds(logits: np.ndarray) -> np.ndarray:
    """Log-odds whose sigmoid is the softmax of the logits, (images, classes) float64; as training.loop.loss.log_odds.

    logits: (images, classes), finite, two classes or more.
    """
    logits = np.asarray(logits, np.float64)
    places = logits.argmax(axis=1)[:, None]
    top, others = np.take_along_axis(logits, places, axis=1), logits.copy()
    np.put_along_axis(others, places, -np.inf, axis=1)
    rest = logsumexp(others, axis=1, keepdims=True)
    # Below the top a probability is at most one half, so 1 - p loses no precision.
    logs = others - np.logaddexp(top, rest)
    odds = logs - np.log1p(-np.exp(logs))
    np.put_along_axis(odds, places, top - rest, axis=1)
    return odds


def with_temperature(log_odds: np.ndarray, temperature: float) -> np.ndarray:
    """Log-odds of the softmax whose logits are divided by a temperature. log_odds: (images, classes), finite."""
    return class_log_odds(log_expit(np.asarray(log_odds, np.float64)) / temperature)


def fit_class_temperature(labels: np.ndarray, log_odds: np.ndarray, largest: float) -> float:
    """The temperature that minimises the validation split's cross-entropy when it divides the softmax's logits.

    labels: (images, classes), exactly one 1 in each row, all else 0. log_odds: the same shape, finite. Returns 1 /
    largest to largest; 1 unless two classes occur. All classes have one temperature, so that their probabilities still
    sum to 1. Fitted to soft targets, for the reason that fit_temperatures has. Raises ValueError as check_classes does.
    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    check_classes(labels, log_odds)
    counts = labels.sum(axis=0)
    if np.count_nonzero(counts) < 2:
        return 1.0
    logs, bound = log_expit(np.asarray(log_odds, np.float64)), math.log(largest)
    targets = soft_classes(labels)

    def loss(log_temperature: float) -> float:
        scaled = logs * math.exp(-log_temperature)
        return float((logsumexp(scaled, axis=1) - (targets * scaled).sum(axis=1)).mean())

    # The loss is convex in 1/temperature, so over the logarithm, too, it falls to one minimum and then rises.
    return math.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6}).x)


def soft_classes(labels: np.ndarray) -> np.ndarray:
    """Probabilities to fit instead of 1 and 0, (images, classes) float64: those of two classes are Platt's.

    labels: (images, classes), exactly one 1 in each row, all else 0. (n + 1) / (n + K) for an image's own class, which
    n images have, and 1 / (n + K) for each other of K classes.
    """
    own = labels @ labels.sum(axis=0, dtype=np.float64)
    return (1 + labels * own[:, None]) / (own + labels.shape[1])[:, None]
