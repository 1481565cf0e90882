"""Age, sex and view of a film: what people give, what DICOM tags state, what speaks against it."""

from dataclasses import replace

import numpy as np
import pytest

from conf.errors import InputError
from inference.film.films import load_film
from inference.film.stated import doubts_of, read_given, refuse_given
from inference.model.inputs import Attributes
from tests.etl.dicom_files import build, written
from tests.inference.toy_properties import PROPERTIES, TAKES_ATTRIBUTES

FILM = np.random.default_rng(0).integers(0, 256, (160, 160)).astype(np.uint8)


def stated_by(**tags):
    return load_film(written(build(FILM, **tags)), TAKES_ATTRIBUTES).stated


def test_words_are_those_that_the_etl_understands():
    assert read_given("64", "female", "pa") == {"age_years": 64.0, "sex": "F", "view": "PA"}
    assert read_given("18m") == {"age_years": 1.5}
    assert read_given("unknown", "", "oblique") == {"age_years": None, "view": None}
    assert read_given() == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-3",), "age is '-3', expected years from 0 to 120"),
        (("121",), "age is '121', expected years from 0 to 120"),
        (("nan.5",), "age is 'nan.5'"),
        (("", "X"), "sex is 'X', expected F, M or unknown"),
        (("", "", "upside down"), "view is 'upside down', expected PA, AP, LATERAL or unknown"),
    ],
)
def test_a_word_that_is_not_understood_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        read_given(*words)


def test_a_model_of_pixels_alone_refuses_every_value():
    with pytest.raises(InputError, match="age and view given, but the model takes pixels alone: leave them out"):
        refuse_given(PROPERTIES, read_given("64", "", "PA"))
    refuse_given(PROPERTIES, {})
    refuse_given(TAKES_ATTRIBUTES, read_given("64"))


def test_tags_state_what_they_would_in_a_table_and_what_is_given_wins():
    stated = stated_by(PatientAge="018M", PatientSex="M", ViewPosition="AP")
    assert stated.values == Attributes(1.5, "M", "AP")
    given = stated.with_given(read_given("64", "", "unknown"))
    assert given.values == Attributes(64.0, "M", None)
    assert str(given) == "age 64 years (given), sex M (from the file), view unknown (given)"
    assert given.to_dict() == {"age_years": 64.0, "sex": "M", "view": None, "given": ["age_years", "view"]}
    assert stated_by().values == Attributes()


def test_a_tag_that_is_not_understood_is_unknown_and_said_but_not_shown():
    stated = stated_by(PatientSex="DOE", ViewPosition="PA", PatientAge="064Y")
    assert (stated.values, stated.strange) == (Attributes(64.0, None, "PA"), ("sex",))
    (said, *_) = doubts_of(stated, TAKES_ATTRIBUTES)
    assert said == "the file's tag for the sex is not understood, so it is taken for unknown"
    assert "understood" not in str(doubts_of(stated.with_given(read_given("", "F")), TAKES_ATTRIBUTES))


def test_what_the_training_did_not_have_is_said():
    def doubts(*words: str) -> list[str]:
        return doubts_of(stated_by().with_given(read_given(*words)), TAKES_ATTRIBUTES)

    assert doubts("20", "F", "PA") == doubts("80", "M", "unknown") == []
    assert doubts("95", "F", "PA") == ["age 95 years is outside the ages of the training split, 20 to 80 years"]
    assert doubts("", "", "LATERAL") == [
        "age unknown, but known for every film of the training split",
        "view LATERAL: no film of the training split has it",
    ]
    nobody = replace(TAKES_ATTRIBUTES, attributes={"trained_on": {**TAKES_ATTRIBUTES.attributes["trained_on"]}})
    nobody.attributes["trained_on"]["age_years"] = {"low": None, "high": None, "unknown": 9}
    given = stated_by().with_given(read_given("64", "F", "PA"))
    assert doubts_of(given, nobody) == ["age 64 years: no film of the training split has a known age"]


def test_a_model_of_pixels_alone_states_nothing():
    assert load_film(written(build(FILM, PatientAge="064Y")), PROPERTIES).stated is None
