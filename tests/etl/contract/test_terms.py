"""Which names of findings mean the same, and which only look alike."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from etl.contract.schema import NIH_FINDINGS
from etl.contract.terms import FILE, meaning, meant_by, names_of, parts_of, shared, term_of, unions_with
from etl.contract.vocabulary import check_vocabulary, spelling
from etl.sources.published.chexpert import CHEXPERT_FINDINGS

LISTED = yaml.safe_load(FILE.read_text("utf-8"))
PRINTED = [name for term in LISTED["terms"] for name in names_of(term)]
# Names that sources print, in other spellings too, and some that no source prints.
NAMES = st.sampled_from([*PRINTED, *map(str.upper, PRINTED), *map(str.lower, PRINTED), "Tube", "tube", "Röhre", "a+b"])
VOCABULARIES = st.lists(NAMES, max_size=8, unique=True)


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("Effusion", "Pleural Effusion"),
        ("Pleural effusion", "Pleural Effusion"),
        ("pleural-effusion", "Pleural Effusion"),
        ("Pleural_Thickening", "Pleural Thickening"),
        ("Pulmonary fibrosis", "Fibrosis"),
        ("infiltrates", "Infiltration"),
        ("Infiltrate", "Infiltration"),
        ("pulmonary edema", "Edema"),
        ("LUNG OPACITY", "Lung Opacity"),
        ("Nodule or mass", "Nodule/Mass"),
        ("Consolidation", "Consolidation"),
        ("hiatal hernia", "Hiatal Hernia"),
        ("rib fracture", "Rib Fracture"),
        ("No Finding", None),
        ("Tube", None),
        ("", None),
    ],
)
def test_a_name_stands_for_its_term(name, term):
    assert term_of(name) == term


def test_every_finding_of_the_built_in_vocabularies_is_known():
    for findings in (NIH_FINDINGS, CHEXPERT_FINDINGS):
        assert [name for name in findings if term_of(name) is None] == []


def test_no_name_stands_for_two_terms_and_every_source_is_cited():
    terms = LISTED["terms"]
    spelled = [spelling(name) for term in terms for name in {spelling(n): n for n in names_of(term)}.values()]
    assert len(spelled) == len(set(spelled))
    assert {source for printed in terms.values() for source in printed} == set(LISTED["sources"])
    assert all(re.search(r"\d{4}", citation) for citation in LISTED["sources"].values())
    check_vocabulary(list(terms))
    for union, parts in LISTED["unions"].items():
        assert {union, *parts} <= set(terms) and len(parts) > 1


def test_a_union_knows_its_parts_and_matches_none_of_them():
    assert parts_of("Nodule/Mass") == parts_of("nodule or mass") == ("Nodule", "Mass")
    assert unions_with("nodule") == ("Nodule/Mass",)
    assert parts_of("Nodule") == parts_of("Tube") == ()
    assert shared(["Nodule/Mass"], ["Nodule", "Mass"]) == []
    assert shared(["Nodule/Mass", "Mass"], ["Nodule", "Nodule or mass"]) == [("Nodule/Mass", "Nodule or mass")]


def test_vocabularies_share_what_means_the_same():
    expected = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pneumonia", "Pneumothorax"]
    pairs = shared(NIH_FINDINGS, CHEXPERT_FINDINGS)
    assert sorted(pairs) == sorted([("Effusion", "Pleural Effusion"), *((name, name) for name in expected)])
    assert [one for one, _ in pairs] == [name for name in NIH_FINDINGS if name in dict(pairs)]
    assert shared(["Infiltration"], ["Consolidation"]) == []
    assert shared(["my finding", "x"], ["My_Finding", "y"]) == [("my finding", "My_Finding")]


def test_the_spelling_decides_where_two_names_of_a_vocabulary_mean_the_same():
    assert shared(["Effusion", "Pleural Effusion"], ["pleural effusion"]) == [("Pleural Effusion", "pleural effusion")]
    # Either could be meant.
    assert shared(["Infiltrate", "Infiltration"], ["infiltrates"]) == []


@given(VOCABULARIES, VOCABULARIES)
def test_shared_is_symmetric_and_takes_each_name_once(one, other):
    pairs = shared(one, other)
    assert sorted((b, a) for a, b in pairs) == sorted(shared(other, one))
    for names, vocabulary in zip(zip(*pairs, strict=True), (one, other), strict=False):
        assert len(set(names)) == len(names) and set(names) <= set(vocabulary)
    assert all(meaning(a) == meaning(b) for a, b in pairs)


@given(VOCABULARIES)
def test_a_vocabulary_shares_all_of_itself_unless_names_have_one_spelling(findings):
    alone = [name for name in findings if len(meant_by(name.swapcase() + " ", findings)) == 1]
    assert set(alone) <= {a for a, b in shared(findings, findings) if a == b}


def test_a_name_means_the_finding_of_that_name_before_those_of_its_term():
    assert meant_by("Effusion", ["Pleural Effusion", "Effusion"]) == ["Effusion"]
    assert meant_by("effusion", ["Pleural Effusion", "Effusion"]) == ["Effusion"]
    assert meant_by("effusion", ["Pleural Effusion", "Mass"]) == ["Pleural Effusion"]
    assert meant_by("infiltrates", ["Infiltrate", "Infiltration"]) == ["Infiltrate", "Infiltration"]
    assert meant_by("Nodule", ["Nodule/Mass"]) == []
