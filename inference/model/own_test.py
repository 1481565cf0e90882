"""The answers of a model on its own test split, with which those at another hospital are compared.

Registering writes them into the model's folder. They hold random numbers instead of the patients' names, in a random
order, and no image. Packages leave them out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

FILE = "test_answers.parquet"
OLDER = "the model was registered by an older release, which kept no answers on its test split"


@dataclass(frozen=True)
class OwnTest:
    """Answers on the model's own test split, in a random order."""

    labels: np.ndarray
    """(images, findings) float32: 1, 0, NaN unknown"""
    probabilities: np.ndarray
    """(images, findings) float32, of the INT8 graph"""
    patients: np.ndarray
    """(images,) int64, a number for each patient"""


def write_own_test(folder: Path, labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray) -> None:
    """Writes the file into a model's folder. patients: (images,) names, which are replaced by numbers."""
    names, ranks = np.unique(patients, return_inverse=True)
    # In an order of its own: with the table's, a public list of the test patients would name them all.
    rng = np.random.default_rng()
    numbers, order = rng.permutation(len(names))[ranks], rng.permutation(len(ranks))
    table = pd.DataFrame({"patient": numbers, "labels": list(labels), "probabilities": list(probabilities)})
    table.iloc[order].to_parquet(folder / FILE, index=False)


def read_own_test(folder: Path) -> OwnTest | str:
    """The answers in a model's folder, or why there are none."""
    if not (folder / FILE).is_file():
        return OLDER
    table = pd.read_parquet(folder / FILE)
    return OwnTest(
        *(np.stack(table[name].to_list()) for name in ("labels", "probabilities")), table["patient"].to_numpy()
    )
