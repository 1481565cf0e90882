"""Combines the probabilities of several models by voting weights per finding; plain arrays, no files."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp

from training.measures.metrics import has_both_classes, known_cells

MIN_WEIGHT = 1e-6
"""smallest probability in a fit: without it, one mistake of a member that is certain would be an infinite loss"""


def fit_weights(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Voting weights per finding that minimise the log loss of the members' weighted mean probability.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. logits: (members, images, findings) log-odds of the
    calibrated probabilities, finite where known. Returns (members, findings) float64, at least 1e-6, sums 1; equal
    weights for a finding without both classes, and for members that say the same. The loss is convex in the weights.
    Source: Geweke and Amisano, "Optimal prediction pools", J. Econometrics 164 (2011), 130-141.
    """
    weights = equal_weights(logits)
    for column in np.flatnonzero(has_both_classes(labels)):
        present, known_logits = known_cells(labels, np.moveaxis(logits, 0, -1), column)
        log_chances = log_expit(np.where(present, 1, -1) * known_logits.T)
        # Divides by a factor that all members share, which changes no weight: otherwise tiny probabilities become 0.
        chances = np.exp(log_chances - log_chances.max(axis=0))

        def loss_and_slope(voices: np.ndarray, chances: np.ndarray = chances) -> tuple[float, np.ndarray]:
            mixed = voices @ chances
            return -np.log(mixed).mean(), -(chances / mixed).mean(axis=1)

        fit = minimize(
            loss_and_slope,
            weights[:, column],
            jac=True,
            method="SLSQP",
            bounds=[(MIN_WEIGHT, 1)] * len(logits),
            constraints={"type": "eq", "fun": lambda voices: voices.sum() - 1, "jac": np.ones_like},
            options={"ftol": 1e-10},
        )
        # The fit failed: equal weights stay.
        if fit.fun <= loss_and_slope(weights[:, column])[0]:
            weights[:, column] = fit.x
    return weights / weights.sum(axis=0)


def equal_weights(logits: np.ndarray) -> np.ndarray:
    """Weights of 1 / members, (members, findings) float64. logits: (members, images, findings)."""
    return np.full(logits.shape[::2], 1 / len(logits))


def vote(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log-odds of the members' weighted mean probability, (images, findings) float64, finite.

    logits: (members, images, findings), finite. weights: (members, findings), 0..1, sums 1. In logarithms, because a
    probability next to 1 rounds to 1, whose log-odds are infinite.
    A mean of calibrated probabilities is too cautious (Ranjan and Gneiting, J. R. Stat. Soc. B 72 (2010), 71-91):
    evaluate fits a temperature to it as to any model.
    """
    for_it, against = (logsumexp(log_expit(s * logits), b=weights[:, None], axis=0) for s in (1, -1))
    return for_it - against
