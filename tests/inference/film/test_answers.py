import json
from dataclasses import replace

import numpy as np
import pytest

from inference.film.answers import call_findings, describe_findings
from tests.inference.toy_properties import PROPERTIES

PROBABILITIES = np.array([0.3, 0.5, 0.9], np.float32)


def test_a_finding_is_called_from_its_threshold_on_and_never_without_one():
    thresholds = {"youden": [float(PROBABILITIES[0]), 0.6, None]}
    answer = describe_findings(replace(PROPERTIES, thresholds=thresholds), PROBABILITIES, 9.0)
    assert [finding.present for finding in answer.findings] == [True, False, None]
    assert [finding.name for finding in answer.findings] == PROPERTIES.findings
    assert answer.familiar
    assert answer.warnings == []


def test_another_operating_point_calls_more():
    answer = describe_findings(PROPERTIES, PROBABILITIES, 9.0, operating_point="sensitivity_0.9")
    assert [finding.present for finding in answer.findings] == [True, True, True]


@pytest.mark.parametrize("distance", [10.5, float("nan"), float("inf")])
def test_what_is_unlike_the_training_data_gets_no_confident_finding(distance):
    answer = describe_findings(PROPERTIES, PROBABILITIES, distance)
    assert not answer.familiar
    assert all(finding.present is None and finding.probability is None for finding in answer.findings)
    assert "unlike the training data" in answer.warnings[0]


def test_the_fault_is_a_warning_and_json_takes_it_all():
    answer = describe_findings(PROPERTIES, PROBABILITIES, 9.0, fault="inverted: bones dark")
    described = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert described["warnings"] == ["inverted: bones dark"]
    assert described["findings"][2] == {
        "name": "Hernia",
        "probability": pytest.approx(0.9),
        "threshold": None,
        "present": None,
    }


def test_json_has_no_number_for_a_distance_that_is_none():
    """NaN and infinity are no JSON, and a program that reads a line of it would stop there."""
    described = describe_findings(PROPERTIES, PROBABILITIES, float("inf")).to_dict()
    assert json.loads(json.dumps(described, allow_nan=False))["distance"] is None


def test_one_image_and_many_are_told_alike():
    distances = np.array([9.0, 11.0, np.nan], np.float32)
    many = np.stack([PROBABILITIES, PROBABILITIES, PROBABILITIES])
    familiar, called = call_findings(PROPERTIES, many, distances)
    for row, distance in enumerate(distances):
        one = describe_findings(PROPERTIES, PROBABILITIES, distance)
        assert one.familiar == familiar[row]
        assert [bool(finding.present) for finding in one.findings] == called[row].tolist()


UNSURE = replace(
    PROPERTIES,
    unsure={"error_rate": 0.1, "absent_below": [0.3, 0.55, None], "present_above": [0.6, 0.7, 0.8]},
)


def test_a_model_with_bounds_answers_present_unsure_or_absent_and_says_why():
    found = describe_findings(UNSURE, PROBABILITIES, 9.0)
    # At its bound the answer is not yet sure.
    assert [finding.answer for finding in found.findings] == ["unsure", "absent", "present"]
    # The thresholds still say what they said.
    assert [finding.present for finding in found.findings] == [True, False, None]
    assert [finding.called for finding in found.findings] == [False, False, True]
    described = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert described["error_rate"] == 0.1
    assert described["findings"][2].items() >= {"answer": "present", "absent_below": None, "present_above": 0.8}.items()
    strange = describe_findings(UNSURE, PROBABILITIES, 11.0)
    assert [finding.answer for finding in strange.findings] == [None] * 3 and strange.to_dict()["error_rate"] == 0.1


def test_a_model_without_bounds_says_nothing_of_them():
    described = describe_findings(PROPERTIES, PROBABILITIES, 9.0).to_dict()
    assert "error_rate" not in described
    assert set(described["findings"][0]) == {"name", "probability", "threshold", "present"}
