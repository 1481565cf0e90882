"""Combines the probabilities of several models by voting weights per finding; plain arrays, no files."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp

from training.measures.metrics import has_both_classes, known_cells

MIN_WEIGHT = 1e-6
"""smallest probability in a fit: without it, one mistake of a member that is certain would be an infinite loss"""


def fit_weights(labels: np.ndarray, logits: np.ndarray, exclusive: bool = False) -> np.ndarray:
    """Voting weights per finding that minimise the log loss of the members' weighted mean probability.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. logits: (members, images, findings) log-odds of the
    calibrated probabilities, finite where known. exclusive: each image has exactly one of the findings, and a member
    has one weight for all of them, so that the mean probabilities still sum to 1. Returns (members, findings) float64,
    at least 1e-6, sums 1; equal weights for a finding without both classes, and for members that say the same. The loss
    is convex in the weights.
    Source: Geweke and Amisano, "Optimal prediction pools", J. Econometrics 164 (2011), 130-141.
    """
    weights = equal_weights(logits)
    if exclusive:
        own = log_expit(logits[:, labels == 1])
        return np.tile(_pool(own, weights[:, 0])[:, None], weights.shape[1])
    for column in np.flatnonzero(has_both_classes(labels)):
        present, known_logits = known_cells(labels, np.moveaxis(logits, 0, -1), column)
        weights[:, column] = _pool(log_expit(np.where(present, 1, -1) * known_logits.T), weights[:, column])
    return weights


def _pool(log_chances: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The weights under which what happened was likeliest, (members,) float64, at least MIN_WEIGHT, sum 1.

    log_chances: (members, images), logarithm of the probability that each member gave to what happened. start: equal
    weights, which stay if the fit fails.
    """
    # Divides by a factor that all members share, which changes no weight: otherwise tiny probabilities become 0.
    chances = np.exp(log_chances - log_chances.max(axis=0))

    def loss_and_slope(voices: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = voices @ chances
        return -np.log(mixed).mean(), -(chances / mixed).mean(axis=1)

    fit = minimize(
        loss_and_slope,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(MIN_WEIGHT, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda voices: voices.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10},
    )
    weights = fit.x if fit.fun <= loss_and_slope(start)[0] else start
    return weights / weights.sum()


def equal_weights(logits: np.ndarray) -> np.ndarray:
    """Weights of 1 / members, (members, findings) float64. logits: (members, images, findings)."""
    return np.full(logits.shape[::2], 1 / len(logits))


def vote(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log-odds of the members' weighted mean probability, (images, findings) float64, finite.

    logits: (members, images, findings), finite. weights: (members, findings), 0..1, sums 1. In logarithms, because a
    probability next to 1 rounds to 1, whose log-odds are infinite.
    Of classes, the weights of which are the same for all, the mean probabilities sum to 1, as the members' do.
    A mean of calibrated probabilities is too cautious (Ranjan and Gneiting, J. R. Stat. Soc. B 72 (2010), 71-91):
    evaluate fits a temperature to it as to any model.
    """
    for_it, against = (logsumexp(log_expit(s * logits), b=weights[:, None], axis=0) for s in (1, -1))
    return for_it - against
