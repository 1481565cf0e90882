"""Joins what several readers say of a film, and measures how far they agree."""

import numpy as np
import pandas as pd

from conf.words import counted

RULES = ("majority", "any")


def join_readers(votes: pd.DataFrame, rule: str) -> pd.DataFrame:
    """One row per film: 1 present, 0 absent, NaN unknown.

    votes: (films and readers, findings) float of 0, 1 and NaN, indexed by the film and the reader. rule: `majority`
    (present if more than half of the readers who say something say so, unknown if just half do), or `any`.
    """
    present, said = votes.groupby(level=0).sum(), votes.groupby(level=0).count()
    if rule == "any":
        joined = (present > 0).astype(np.float32)
    else:
        joined = (2 * present > said).astype(np.float32).mask(2 * present == said)
    return joined.where(said > 0)


def agreement(votes: pd.DataFrame) -> pd.Series:
    """Kappa of each finding over the films that two or more readers have read; NaN where all say the same.

    With as many readers for each film it is Fleiss' kappa (Fleiss 1971); with different numbers the estimate of Fleiss
    and Cuzick (1979). 1: they always agree; 0: as often as by chance. votes: as in join_readers.
    """
    present, said = votes.groupby(level=0).sum(), votes.groupby(level=0).count()
    several = said >= 2
    films, readers = several.sum(), said.where(several).mean()
    share = present.where(several).sum() / said.where(several).sum()
    within = (said * (present / said) * (1 - present / said)).where(several).sum()
    chance = films * (readers - 1) * share * (1 - share)
    return 1 - within / chance.where(chance > 0)


def describe_agreement(votes: pd.DataFrame) -> list[str]:
    """A sentence with the agreement on each finding; empty if no film has two readers."""
    films = int((votes.groupby(level=0).size() >= 2).sum())
    if not films:
        return []
    said = ", ".join(
        f"{name} {'-' if np.isnan(kappa) else format(kappa, '.2f')}" for name, kappa in agreement(votes).items()
    )
    return [f"agreement of the readers (Fleiss' kappa) on {counted(films, 'film')}: {said}"]
