"""A model's calibration and thresholds, fitted to another site."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from conf.errors import InputError
from conf.settings import Validation
from inference.candidate.making.reference_films import draw_reference
from inference.candidate.measuring.evaluate import Scored, score_split
from inference.external.recalibrate import describe, recalibrate, refuse_classes, write_model
from inference.external.seen import was_fitted
from inference.model.model_files import ModelFiles
from inference.model.reference import difference_here
from inference.model.variants import open_variant
from tests.conftest import make_card
from tests.inference.conftest import FINDINGS

OPTIONS = Validation(recalibrate=True)
MODES = ("int8", "fp32", "fp16", "onnx", "torch")


def skewed(num_patients: int = 400, scale: float = 0.5, offset: float = 1.5, rare: int = 3) -> Scored:
    """Two films of each patient, whose logits are too flat and too high; the last finding is too rare to fit."""
    rng = np.random.default_rng(0)
    true = rng.normal(-1, 2, (2 * num_patients, 3))
    labels = (rng.random(true.shape) < expit(true)).astype(np.float32)
    labels[:, 2] = 0
    labels[:rare, 2] = 1
    patients = np.repeat([f"p{number}" for number in range(num_patients)], 2)
    images = pd.DataFrame({"patient_id": patients, "age_years": 50.0, "sex": "F", "view": "PA"})
    probabilities = expit(scale * true + offset).astype(np.float32)
    return Scored(labels, images, {"int8": probabilities}, {"int8": np.zeros(len(labels), np.float32)}, {"int8": []})


@pytest.fixture
def files(int8) -> ModelFiles:
    return ModelFiles("chexscale", 4, int8.parent)


@pytest.fixture
def properties(int8):
    properties = open_variant("int8", int8)[1]
    return replace(properties, thresholds={name: [0.5, 0.5, 0.5] for name in properties.thresholds})


def test_a_known_shift_and_flattening_are_undone_and_measured_on_other_patients(files, properties):
    scored = skewed()
    fit = recalibrate(properties, scored, "int8", files, "b", "films", OPTIONS, seed=0)
    # The inverse of what was done to the logits.
    np.testing.assert_allclose(fit.scales[:2], 2, rtol=0.2)
    np.testing.assert_allclose(fit.offsets[:2], -3, atol=0.5)
    described = describe(fit, scored, "int8", properties, seed=0)
    for name in FINDINGS[:2]:
        assert described["after"]["calibration_error"][name] < described["before"]["calibration_error"][name] / 3
    patients = scored.images.patient_id
    assert not set(patients[fit.fitted]) & set(patients[~fit.fitted])
    assert described["fitted_to"]["images"] + described["held_out"]["images"] == 800
    assert 150 < described["held_out"]["patients"] < 250


def test_a_finding_of_too_few_patients_keeps_calibration_and_thresholds(files, properties):
    fit = recalibrate(properties, skewed(), "int8", files, "b", "films", OPTIONS, seed=0)
    assert fit.kept == FINDINGS[2:] and (fit.scales[2], fit.offsets[2]) == (1, 0)
    for values in fit.properties.thresholds.values():
        assert values[2] == 0.5 and 0.5 not in values[:2]
    assert fit.properties.temperatures[2] == properties.temperatures[2]
    assert (fit.properties.recalibrated["site"], fit.properties.recalibrated["version"]) == ("b", 4)


def test_films_of_too_few_patients_are_refused(files, properties):
    with pytest.raises(InputError, match="no finding has 10 patients with it"):
        recalibrate(properties, skewed(num_patients=12), "int8", files, "b", "films", OPTIONS, seed=0)


def test_classes_are_refused(properties):
    with pytest.raises(InputError, match="must add up to 1"):
        refuse_classes(replace(properties, exclusive=True))


def test_a_fit_to_all_patients_is_refused(files, properties):
    with pytest.raises(InputError, match="none is left to measure"):
        recalibrate(
            properties, skewed(), "int8", files, "b", "films", Validation(recalibrate=True, fit_fraction=0.9999), seed=0
        )


def test_patients_who_were_fitted_to_are_known_later_and_the_others_too(files, properties):
    scored = skewed()
    fit = recalibrate(properties, scored, "int8", files, "b", "films", OPTIONS, seed=0)
    again = recalibrate(fit.properties, scored, "int8", files, "b", "films", OPTIONS, seed=1)
    elsewhere, here = make_card(["A"], [1], [2]), replace(make_card(["A"], [1], [2]), delta_table_id="films")
    for model, expected in ((fit.properties, fit.fitted), (again.properties, fit.fitted | again.fitted)):
        known = [was_fitted(model, here, patient) for patient in scored.patients]
        assert known == expected.tolist()
        assert not any(was_fitted(model, elsewhere, patient) for patient in scored.patients)


def test_a_finding_that_is_ranked_worse_than_by_chance_keeps_its_calibration(files, properties):
    scored = skewed()
    scored.probabilities["int8"][:, 0] = 1 - scored.probabilities["int8"][:, 0]
    fit = recalibrate(properties, scored, "int8", files, "b", "films", OPTIONS, seed=0)
    assert FINDINGS[0] in fit.kept and FINDINGS[1] not in fit.kept


def test_every_form_of_the_model_answers_alike_and_the_network_stays(files, properties, test_images, tmp_path):
    fit = recalibrate(properties, skewed(), "int8", files, "b", "films", OPTIONS, seed=0)
    described = describe(fit, skewed(), "int8", properties, seed=0)
    opened = {mode: open_variant(mode, files.folder / mode)[0] for mode in MODES}
    # This folder is of all tests.
    files = replace(files, folder=shutil.copytree(files.folder, tmp_path / "before"))
    draw_reference(opened, properties).save(files.folder)
    write_model(fit, described, files, "b", tmp_path / "model")
    for mode in MODES:
        before, old = open_variant(mode, files.folder / mode)
        after, new = open_variant(mode, tmp_path / "model" / mode)
        was, now = before(test_images), after(test_images)
        # In float64, because the probabilities of sure findings are rounded to 1.
        logits = was.maps.mean(axis=(2, 3), dtype=np.float64)
        tolerance = 5e-3 if mode == "fp16" else 1e-5
        np.testing.assert_allclose(now.probabilities, expit(fit.scales * logits + fit.offsets), atol=tolerance)
        means = now.maps.mean(axis=(2, 3), dtype=np.float64)
        np.testing.assert_allclose(now.probabilities, expit(means), atol=1e-4)
        np.testing.assert_allclose(now.distances, was.distances, rtol=1e-6)
        assert difference_here(tmp_path / "model", mode, after, FINDINGS, "--mode") == ""
        assert new.thresholds == fit.properties.thresholds and new.distance_threshold == old.distance_threshold


def test_the_answers_of_the_recalibrated_graph_are_those_that_were_measured(files, properties, splits, tmp_path):
    fit = recalibrate(properties, skewed(), "int8", files, "b", "films", OPTIONS, seed=0)
    write_model(fit, describe(fit, skewed(), "int8", properties, seed=0), files, "b", tmp_path / "model")
    scored = score_split({"int8": open_variant("int8", files.folder / "int8")[0]}, splits["test"], 16, properties)
    new = score_split({"int8": open_variant("int8", tmp_path / "model" / "int8")[0]}, splits["test"], 16, properties)
    np.testing.assert_allclose(new.probabilities["int8"], fit.probabilities(scored.probabilities["int8"]), atol=1e-4)


def test_bounds_are_chosen_anew_on_the_films_that_are_fitted_to_and_only_for_their_precision(
    files, properties, tmp_path
):
    scored, rate = skewed(rare=300), 0.1
    unsure = {"error_rate": rate, "absent_below": [0.1] * 3, "present_above": [0.6] * 3}
    shipped = replace(properties, unsure=unsure | {"patients_with": [30] * 3, "patients_without": [30] * 3})
    fit = recalibrate(shipped, scored, "int8", files, "b", "films", OPTIONS, seed=0)
    new = fit.properties.unsure
    assert new["error_rate"] == rate and new["absent_below"] != [0.1] * 3 and min(new["patients_with"]) > 50
    described = describe(fit, scored, "int8", shipped, seed=0)
    before, after = (described[part]["unsure"]["findings"][FINDINGS[0]] for part in ("before", "after"))
    # All logits are too high, so the bounds of the other site answer present too often.
    assert before["absent_answered_present"]["low"] > 0.2
    assert after["absent_answered_present"]["low"] <= rate and after["present_answered_absent"]["low"] <= rate
    write_model(fit, described, files, "b", tmp_path / "model")
    assert open_variant("int8", tmp_path / "model" / "int8")[1].unsure == new
    assert open_variant("fp32", tmp_path / "model" / "fp32")[1].unsure == {}


def test_an_error_rate_that_the_films_are_too_few_for_ends_its_answers_and_is_said(files, properties):
    unsure = {"error_rate": 0.001, "absent_below": [0.1] * 3, "present_above": [0.9] * 3}
    fit = recalibrate(replace(properties, unsure=unsure), skewed(), "int8", files, "b", "films", OPTIONS, seed=0)
    assert fit.properties.unsure == {}
    (note,) = fit.notes
    assert "does not answer unsure: an error rate of 0.001 needs 999 patients" in note and "fit_fraction" in note
