"""How the labels of several readers are joined, and how far they agree."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from etl.sources.published.readers import agreement, describe_agreement, join_readers


def votes(films: dict[str, list[float]]) -> pd.DataFrame:
    rows = [(film, f"R{reader}", value) for film, values in films.items() for reader, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["film", "reader", "Mass"]).set_index(["film", "reader"])


FILMS = {
    "none": [0, 0, 0],
    "one": [1, 0, 0],
    "two": [1, 0, 1],
    "half": [1, 0],
    "open": [np.nan, np.nan],
    "few": [np.nan, 1],
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("majority", {"none": 0, "one": 0, "two": 1, "half": np.nan, "open": np.nan, "few": 1}),
        ("any", {"none": 0, "one": 1, "two": 1, "half": 1, "open": np.nan, "few": 1}),
    ],
)
def test_a_film_has_the_label_that_the_rule_gives(rule, expected):
    np.testing.assert_equal(join_readers(votes(FILMS), rule).Mass.to_dict(), expected)


def test_kappa_is_that_of_a_case_computed_by_hand():
    # Three readers of four films agree on two: mean agreement (1 + 1 + 1/3 + 1/3) / 4 = 2/3. 6 of 12 votes are present,
    # so chance gives 1/2, and kappa = (2/3 - 1/2) / (1 - 1/2) = 1/3 (Fleiss 1971).
    four = votes({"a": [1, 1, 1], "b": [0, 0, 0], "c": [1, 1, 0], "d": [1, 0, 0]})
    assert agreement(four).Mass == pytest.approx(1 / 3)
    assert describe_agreement(four) == ["agreement of the readers (Fleiss' kappa) on 4 films: Mass 0.33"]


@given(arrays(np.float64, st.tuples(st.integers(2, 9), st.integers(2, 4)), elements=st.sampled_from([0.0, 1.0])))
def test_kappa_is_fleiss_kappa_where_all_films_have_as_many_readers(said):
    readers, share = said.shape[1], said.mean()
    kappa = agreement(votes({f"f{film:02}": list(row) for film, row in enumerate(said)})).Mass
    if share in (0, 1):
        assert np.isnan(kappa)
        return
    present = said.sum(axis=1)
    agreed = (present * (present - 1) + (readers - present) * (readers - present - 1)) / (readers * (readers - 1))
    chance = share**2 + (1 - share) ** 2
    assert kappa == pytest.approx((agreed.mean() - chance) / (1 - chance))


def test_films_of_one_reader_have_no_agreement():
    assert describe_agreement(votes({"a": [1], "b": [0]})) == []
    assert np.isnan(agreement(votes({"a": [1, 1], "b": [1, 1]})).Mass)
