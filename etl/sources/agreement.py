"""How far two sources of labels agree on the same images, on plain arrays."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from etl.contract.terms import shared


def compare_labels(
    labels: pd.Series, findings: Sequence[str], others: pd.Series, other_findings: Sequence[str]
) -> dict[str, dict]:
    """Counts and rates of each finding that both sources have, ready for JSON, where undefined is None.

    labels, others: (findings,) float arrays, 1 present, 0 absent, NaN unknown, by the image's name. Only images of both
    count whose label is known to both. Per finding: `name`, what the others call it; `known`, `present` (here),
    `others_present`, `both_present`: images; `kappa` (Cohen, Educ. Psychol. Meas. 20 (1960), 37-46: 1 they always
    agree, 0 as often as by chance); `ppv` and `sensitivity` of these labels if the others are right.
    """
    common = labels.index.intersection(others.index)
    described = {}
    for finding, other in shared(findings, other_findings):
        pairs = ((labels, findings.index(finding)), (others, list(other_findings).index(other)))
        mine, theirs = (np.array([row[column] for row in side[common]], float) for side, column in pairs)
        known = ~np.isnan(mine) & ~np.isnan(theirs)
        described[finding] = {"name": other, **agreement_of(mine[known] == 1, theirs[known] == 1)}
    return described


def agreement_of(present: np.ndarray, others: np.ndarray) -> dict[str, int | float | None]:
    """The counts and rates of one finding. present, others: (images,) bool."""
    known, mine, theirs = len(present), int(present.sum()), int(others.sum())
    both = int((present & others).sum())
    agreed = known - mine - theirs + 2 * both
    by_chance = mine * theirs + (known - mine) * (known - theirs)
    # Both say the same of every image: agreement by chance is certain, and kappa undefined.
    kappa = math.nan if known == 0 or by_chance == known**2 else (known * agreed - by_chance) / (known**2 - by_chance)
    rates = {
        "kappa": kappa,
        "ppv": both / mine if mine else math.nan,
        "sensitivity": both / theirs if theirs else math.nan,
    }
    counts = {"known": known, "present": mine, "others_present": theirs, "both_present": both}
    return counts | {name: None if math.isnan(value) else round(value, 6) for name, value in rates.items()}


def sentence_on(name: str, agreement: dict) -> str:
    """A sentence for the end of a run. agreement: an entry of Card.agreement."""
    said = ", ".join(
        f"{finding} {'-' if part['kappa'] is None else format(part['kappa'], '.2f')}"
        for finding, part in agreement["findings"].items()
    )
    return f"agreement with the labels of {name} (Cohen's kappa) on {agreement['images']:,} images: {said}"
