"""How far two sets of labels of the same films agree, such as mined ones and a radiologist's; on plain arrays."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """How two sets of labels agree on one finding, over the films whose label both know. Shares are 0..1, NaN if
    undefined.
    """

    films: int
    first: int
    """films with the finding by the first set"""
    second: int
    """films with the finding by the second set"""
    both: int
    """films with the finding by both"""
    kappa: float
    """Cohen's kappa: 1 is full agreement, 0 what chance gives (Educational and Psychological Measurement 20, 1960)"""
    ppv: float
    """share of the first set's positives that are positive in the second"""
    sensitivity: float
    """share of the second set's positives that are positive in the first"""


def agreement(first: np.ndarray, second: np.ndarray) -> list[Agreement]:
    """The agreement of each finding. first, second: (films, findings) 1 present, 0 absent, NaN unknown."""
    return [_agreement(*columns) for columns in zip(first.T, second.T, strict=True)]


def _agreement(first: np.ndarray, second: np.ndarray) -> Agreement:
    known = ~(np.isnan(first) | np.isnan(second))
    ours, theirs = first[known] == 1, second[known] == 1
    films, both = len(ours), int((ours & theirs).sum())
    mine, other = int(ours.sum()), int(theirs.sum())
    by_chance = (mine * other + (films - mine) * (films - other)) / films**2 if films else np.nan
    same = float((ours == theirs).mean()) if films else np.nan
    kappa = (same - by_chance) / (1 - by_chance) if by_chance < 1 else np.nan
    return Agreement(films, mine, other, both, kappa, _share(both, mine), _share(both, other))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else np.nan
