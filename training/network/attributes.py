"""Age, sex and view as numbers, and the branch of a network that takes them."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from conf.errors import InputError
from conf.words import SEXES, VIEWS

# They scale the ages of a hospital's patients to between -2 and 2.
AGE_CENTRE_YEARS, AGE_SCALE_YEARS = 50.0, 25.0
# Age and its indicator of "unknown"; a column per sex and one for "unknown"; the same for view.
NUM_ATTRIBUTES = 2 + len(SEXES) + 1 + len(VIEWS) + 1
TABULAR_FEATURES = 16


def encode_attributes(
    age_years: Sequence[float | None], sex: Sequence[str | None], view: Sequence[str | None]
) -> np.ndarray:
    """Age, sex and view as numbers, (batch, NUM_ATTRIBUTES) float32.

    age_years: years, None or NaN unknown; sex: F, M or None; view: PA, AP, LATERAL or None, each (batch,). Columns: age
    as (years - 50) / 25, 0 if unknown; 1 if age is unknown, else 0; one-hot F, M, unknown; one-hot PA, AP, LATERAL,
    unknown. Raises InputError for any other sex or view.
    """
    years = np.array(age_years, dtype=np.float32)
    unknown = np.isnan(years)
    scaled = np.where(unknown, 0, (years - AGE_CENTRE_YEARS) / AGE_SCALE_YEARS)
    columns = [scaled[:, None], unknown[:, None], _one_hot("sex", sex, SEXES), _one_hot("view", view, VIEWS)]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def _one_hot(name: str, words: Sequence[str | None], vocabulary: tuple[str, ...]) -> np.ndarray:
    known = (*vocabulary, None)
    strange = sorted({repr(word) for word in words if word not in known})
    if strange:
        raise InputError(f"{name} is {', '.join(strange)}, expected {', '.join(vocabulary)} or None for unknown")
    return np.array([[word == column for column in known] for word in words], dtype=np.float32).reshape(-1, len(known))


def tabular_branch() -> nn.Module:
    """Two small layers: (batch, NUM_ATTRIBUTES) to (batch, TABULAR_FEATURES), both float32."""
    hidden = nn.Linear(NUM_ATTRIBUTES, TABULAR_FEATURES), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(TABULAR_FEATURES, TABULAR_FEATURES), nn.ReLU())
