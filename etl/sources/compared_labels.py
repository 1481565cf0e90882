"""How far two sources of labels agree on the same images."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from etl.contract.agreement import agreement
from etl.contract.terms import shared


def compare_labels(
    labels: pd.Series, findings: Sequence[str], others: pd.Series, other_findings: Sequence[str]
) -> dict[str, dict]:
    """Counts and rates of each finding that both sources have, ready for JSON, where undefined is None.

    labels, others: (findings,) float arrays, 1 present, 0 absent, NaN unknown, by the image's name. Only images of both
    count whose label is known to both. Per finding: `name`, what the others call it; `known`, `present` (here),
    `others_present`, `both_present`: images; `kappa`, `ppv` and `sensitivity` of these labels if the others are right.
    """
    common = labels.index.intersection(others.index)
    described = {}
    for finding, other in shared(findings, other_findings):
        pairs = ((labels, findings.index(finding)), (others, list(other_findings).index(other)))
        (one,) = agreement(
            *(np.array([[row[column]] for row in side[common]], float).reshape(-1, 1) for side, column in pairs)
        )
        rates = {name: getattr(one, name) for name in ("kappa", "ppv", "sensitivity")}
        described[finding] = {
            "name": other,
            "known": one.films,
            "present": one.first,
            "others_present": one.second,
            "both_present": one.both,
            **{name: None if math.isnan(value) else round(value, 6) for name, value in rates.items()},
        }
    return described


def sentence_on(name: str, described: dict) -> str:
    """A sentence for the end of a run. described: an entry of Card.agreement."""
    said = ", ".join(
        f"{finding} {'-' if part['kappa'] is None else format(part['kappa'], '.2f')}"
        for finding, part in described["findings"].items()
    )
    return f"agreement with the labels of {name} (Cohen's kappa) on {described['images']:,} images: {said}"
