"""Answers for every combination of age, sex and view, as a table: the form that any model of the three alone takes."""

import numpy as np
import pandas as pd

from conf.words import SEXES, VIEWS

MAX_AGE_YEARS = 120
"""ages above it count as it"""
SHAPE = (MAX_AGE_YEARS + 2, len(SEXES) + 1, len(VIEWS) + 1)
"""whole years from 0 on, sexes, views; the last place of each is for what is unknown"""


def everyone() -> pd.DataFrame:
    """Columns age_years (NaN unknown), sex and view (None unknown), a row per cell of the table, in its order."""
    ages = [*map(float, range(MAX_AGE_YEARS + 1)), np.nan]
    people = pd.MultiIndex.from_product([range(size) for size in SHAPE]).to_frame(index=False)
    words = ((*SEXES, None), (*VIEWS, None))
    return pd.DataFrame(
        {
            "age_years": [ages[place] for place in people[0]],
            "sex": [words[0][place] for place in people[1]],
            "view": [words[1][place] for place in people[2]],
        }
    )


def cells_of(people: pd.DataFrame) -> np.ndarray:
    """The row of `everyone` that each person is, (people,) int64. people: its columns; None and NaN are unknown."""
    years = people["age_years"].to_numpy(np.float64)
    known = years >= 0
    ages = np.where(known, np.floor(np.where(known, years, 0)).clip(0, MAX_AGE_YEARS), MAX_AGE_YEARS + 1)
    places = [ages.astype(np.int64)]
    for name, words in (("sex", SEXES), ("view", VIEWS)):
        places.append(np.array([words.index(word) if word in words else len(words) for word in people[name]], np.int64))
    return np.ravel_multi_index(places, SHAPE)
