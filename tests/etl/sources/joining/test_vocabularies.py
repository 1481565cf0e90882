"""The joint vocabulary of several sources, and what follows from the meaning of unions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from conf.errors import InputError
from etl.contract.schema import NIH_FINDINGS
from etl.contract.terms import meaning, shared, term_of
from etl.sources.joining.vocabularies import infer_labels, join_vocabularies, spread
from etl.sources.published.chexpert import CHEXPERT_FINDINGS

NAN = np.nan
UNION = ["Nodule", "Mass", "Nodule/Mass"]
NAMES = st.lists(
    st.sampled_from([*NIH_FINDINGS, *CHEXPERT_FINDINGS, "Nodule/Mass", "infiltrates", "my tube"]),
    max_size=6,
    unique_by=meaning,
)


def test_names_of_one_term_are_one_finding():
    joint, places = join_vocabularies({"nih": ["Effusion", "Mass"], "chexpert": ["Fracture", "Pleural Effusion"]})
    assert joint == ["Pleural Effusion", "Mass", "Fracture"]
    assert places == {"nih": [0, 1], "chexpert": [2, 0]}


def test_names_that_no_source_prints_are_one_finding_if_they_are_spelled_alike():
    joint, places = join_vocabularies({"a": ["My tube"], "b": ["my_tube", "tube"]})
    assert (joint, places) == (["My tube", "tube"], {"a": [0], "b": [0, 1]})


@pytest.mark.parametrize(
    ("one", "other"), [("Infiltration", "Consolidation"), ("Nodule/Mass", "Mass"), ("Rib fracture", "Fracture")]
)
def test_what_only_looks_alike_stays_apart(one, other):
    assert len(join_vocabularies({"a": [one], "b": [other]})[0]) == 2


def test_two_findings_of_one_source_that_mean_the_same_are_refused():
    with pytest.raises(InputError, match="'Effusion' and 'Pleural Effusion' of the source b mean the same.*scenario"):
        join_vocabularies({"a": ["Mass"], "b": ["Effusion", "Mass", "Pleural Effusion"]})


@given(NAMES, NAMES)
def test_each_meaning_is_once_in_the_joint_vocabulary(one, other):
    joint, places = join_vocabularies({"one": one, "other": other})
    assert len({meaning(name) for name in joint}) == len(joint) == len({*map(meaning, one), *map(meaning, other)})
    for name, findings in (("one", one), ("other", other)):
        assert [meaning(joint[place]) for place in places[name]] == [meaning(finding) for finding in findings]
    assert all(name == (term_of(name) or name) for name in joint)
    # What the sources share is in one place.
    pairs = {(one.index(a), other.index(b)) for a, b in shared(one, other)}
    assert {(places["one"][a], places["other"][b]) for a, b in pairs} == {
        (place, place) for place in set(places["one"]) & set(places["other"])
    }


def test_labels_go_to_their_places_and_are_unknown_elsewhere():
    wide = spread(np.float32([[1, 0], [NAN, 1]]), [2, 0], 3)
    np.testing.assert_array_equal(wide, np.float32([[0, NAN, 1], [1, NAN, NAN]]))
    assert wide.dtype == np.float32


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([NAN, NAN, 0], [0, 0, 0]),
        ([NAN, NAN, 1], [NAN, NAN, 1]),
        ([1, NAN, NAN], [1, NAN, 1]),
        ([NAN, 1, NAN], [NAN, 1, 1]),
        ([0, 0, NAN], [0, 0, 0]),
        ([0, NAN, NAN], [0, NAN, NAN]),
        ([NAN, NAN, NAN], [NAN, NAN, NAN]),
        # A contradiction of the source stays as it is.
        ([1, NAN, 0], [1, 0, 0]),
    ],
)
def test_a_union_says_what_it_means_and_nothing_more(before, after):
    labels = np.float32([before])
    infer_labels(labels, UNION)
    np.testing.assert_array_equal(labels, np.float32([after]))


def test_what_was_filled_in_is_counted():
    labels = np.float32([[NAN, NAN, 0], [NAN, NAN, 1], [NAN, 0, 0]])
    assert infer_labels(labels, UNION) == {"Nodule": 2, "Mass": 1}


def test_a_union_without_all_its_parts_is_never_absent_because_of_them():
    labels = np.float32([[0, NAN], [1, NAN]])
    infer_labels(labels, ["Mass", "Nodule or mass"])
    np.testing.assert_array_equal(labels, np.float32([[0, NAN], [1, 1]]))


@given(st_np.arrays(np.float32, (5, 3), elements=st.sampled_from([0, 1, NAN])))
def test_known_labels_never_change_and_a_second_time_changes_nothing(before):
    labels = before.copy()
    filled = infer_labels(labels, UNION)
    known = ~np.isnan(before)
    np.testing.assert_array_equal(labels[known], before[known])
    assert sum(filled.values()) == np.isnan(before).sum() - np.isnan(labels).sum()
    assert infer_labels(labels, UNION) == {}
    # Without the union or its parts nothing follows.
    assert infer_labels(before[:, :2].copy(), UNION[:2]) == infer_labels(before[:, 2:].copy(), UNION[2:]) == {}
