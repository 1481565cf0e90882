"""The words of the field: all that are understood, and that nothing is guessed from the others."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.contract.words import UNKNOWN, parse_ages, sexes_of, split_of, strange_numbers, understand, view_of

SPLITS = {
    "train": ["01_train", "Train set", "train", "Training", "TRAIN ", "trn"],
    "val": ["val", "valid", "Validate", "validation", "dev", "Development", "tune"],
    "test": ["test", "Testing", "holdout", "hold-out", "hold out"],
    None: ["fold 1", "t", "v", "covid_test", "1"],
    UNKNOWN: ["", " ", "-"],
}
SEXES = {
    "F": ["F", "f", "Female", "woman", "weiblich", "W", "Mujer", "femme", "Féminin", "女"],
    "M": ["M", "male", "Man", "männlich", "homme", "Hombre", "Masculin", "男"],
    None: ["Mrs", "Misc", "Fm", "1", "x", "male?female"],
    UNKNOWN: ["", "missing", "Unknown", "U", "O", "n/a", "NaN"],
}
VIEWS = {
    "PA": ["PA", "pa", "P.A.", "postero-anterior", "PA erect"],
    "AP": ["AP", "AP Supine", "AP_horizontal", "AP Erect", "ap semi-erect", "AP portable", "antero-posterior"],
    "LATERAL": ["LATERAL", "Lateral", "LL", "RL", "L", "LAT", "LLAT", "left lateral"],
    None: ["XYZ", "APX", "PAPA", "frontal", "AP 2", "3"],
    UNKNOWN: ["", "unknown", "LLD", "RAO", "oblique", "AP lordotic"],
}


def cases(words: dict) -> list[tuple[str, str | None]]:
    return [(word, meaning) for meaning, said in words.items() for word in said]


@pytest.mark.parametrize(("word", "meaning"), cases(SPLITS))
def test_splits(word, meaning):
    assert split_of(word) == meaning


@pytest.mark.parametrize(("word", "meaning"), cases(SEXES))
def test_sexes(word, meaning):
    assert sexes_of([word])(word) == meaning


@pytest.mark.parametrize(("word", "meaning"), cases(VIEWS))
def test_views(word, meaning):
    assert view_of(word) == meaning


def test_the_letter_m_beside_an_h_is_not_taken_for_a_man():
    meaning = sexes_of(["H", "M", "M"])
    assert [meaning(word) for word in ("H", "M", "F", "Mujer")] == [None, None, "F", "F"]


def test_ages_without_a_unit_are_years_and_strange_ones_are_kept_aside():
    cells = pd.Series(["62", "018M", "412", "", "unknown", "x1"])
    years = parse_ages(cells)
    assert years[:2].tolist() == [62, 1.5] and years[2:].isna().all()
    assert strange_numbers(cells, years).tolist() == [None, None, "412", None, None, "x1"]


# read_table refuses null bytes.
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), min_size=1))
def test_every_cell_is_understood_or_kept_aside(cells):
    cells = pd.Series(cells, dtype=object)
    for meaning, words in ((split_of, SPLITS), (view_of, VIEWS), (sexes_of(cells), SEXES)):
        found, strange = understand(cells, meaning)
        assert set(found.dropna()) <= {word for word in words if word}
        for cell, one, other in zip(cells, found, strange, strict=True):
            assert other in (None, cell) and (one is None or other is None)
            assert (other is not None) == (meaning(cell) is None)


@pytest.mark.parametrize(
    ("cells", "word", "meaning"),
    [
        (["H"] * 8 + ["M"] * 7 + ["F"], "M", None),
        (["F"] * 8 + ["M"] * 7 + ["H"], "M", "M"),
        (["D", "U", "D"], "D", None),
        (["M", "W", "D"], "D", UNKNOWN),
        (["donna", "uomo"], "donna", "F"),
        (["feminino", "masculino"], "feminino", "F"),
    ],
)
def test_a_letter_that_two_languages_use_is_understood_by_the_column(cells, word, meaning):
    assert sexes_of(cells)(word) == meaning
