"""Bounds between which a model answers `unsure`, from its answers on the validation split."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.words import counted
from conf.writing import atomic_folder
from etl.contract.table import read_labels
from inference.candidate.measuring.evaluate import Scored, finite_answers
from inference.model.restated import write_restated
from training.measures.conformal import count_patients, fit_bounds, patients_needed, smallest_rate
from training.reading.plan import Split

MAX_RATE = 0.5
"""error rates lie below it"""


def check_error_rate(findings: list[str], val: Split, error_rate: float) -> list[str]:
    """Sentences on the findings for which the validation split has too few patients; empty if it has enough for all.

    Raises InputError, as lacking does, before hours of work.
    """
    rows = pd.concat(read_labels(val.files))
    labels, patients = np.stack(rows.findings.to_numpy()), rows.patient_id.to_numpy()
    return lacking(findings, labels, patients, error_rate, "the validation split")


def lacking(findings: list[str], labels: np.ndarray, patients: Sequence, error_rate: float, films: str) -> list[str]:
    """Sentences on the findings that too few patients have, or lack, for the error rate.

    labels: (films, findings). films: what they are called in messages. Raises InputError if no finding can have all
    three answers.
    """
    needed, counts = patients_needed(error_rate), count_patients(labels, patients)
    fewest = np.minimum(*counts)
    if fewest.max() < needed:
        raise InputError(_refusal(findings, fewest, error_rate, needed, films))
    return [
        f"{finding}: {counted(number, 'patient')} {'with' if place == 0 else 'without'} it in {films}, and an error "
        f"rate of {error_rate:g} needs {needed}, so it is never answered {'absent' if place == 0 else 'present'}"
        for finding, *numbers in zip(findings, *(each.tolist() for each in counts), strict=True)
        for place, number in enumerate(numbers)
        if number < needed
    ]


def _refusal(findings: list[str], fewest: np.ndarray, error_rate: float, needed: int, films: str) -> str:
    nearest = int(fewest.argmax())
    number = int(fewest[nearest])
    # Rounded up, so that the number in the message works.
    smallest = math.ceil(smallest_rate(number) * 1e4) / 1e4
    least = f"at least {smallest:g}, or of " if smallest < MAX_RATE else ""
    return (
        f"an inference.error_rate of {error_rate:g} needs {counted(needed, 'patient')} with a finding and {needed} "
        f"without it, but no finding has them in {films}: {findings[nearest]} comes nearest, with "
        f"{counted(number, 'patient')} in the smaller group; register with an inference.error_rate of {least}0 (no "
        "such answers), or give films of more patients"
    )


def fit_unsure(labels: np.ndarray, probabilities: np.ndarray, patients: Sequence, error_rate: float) -> dict:
    """Properties.unsure of the model that has given these probabilities; the parameters are those of fit_bounds."""
    bounds = fit_bounds(labels, probabilities, patients, error_rate)
    num_with, num_without = count_patients(labels, patients)
    return {
        "error_rate": error_rate,
        **{key: [float(value) if np.isfinite(value) else None for value in each] for key, each in vars(bounds).items()},
        "patients_with": num_with.tolist(),
        "patients_without": num_without.tolist(),
    }


def add_bounds(folder: Path, scored: Scored, error_rate: float) -> None:
    """Stores Properties.unsure in the variants of a model in `folder`, of those that have answered as `scored`.

    scored: the answers of each variant on the validation split, because each precision has probabilities of its own.
    """
    for name in scored.probabilities:
        # A finding with a probability that is not finite has no known label, and is always answered unsure.
        labels, (probabilities,) = finite_answers(scored, name)
        unsure = fit_unsure(labels, probabilities, scored.patients, error_rate)
        # Exchanged as a whole, because an open graph reads its weights from the file that is there now.
        with atomic_folder(folder / name) as building:
            write_restated(name, folder / name, building, partial(replace, unsure=unsure))
