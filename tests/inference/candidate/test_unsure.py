"""Bounds of answers at an error rate: chosen for each precision by itself, and refused if too few patients remain."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from conf.errors import InputError
from inference.candidate.making.unsure import add_bounds, check_error_rate, lacking
from inference.candidate.measuring.answers import SHARES, describe_answers
from inference.candidate.measuring.evaluate import score_split
from inference.model.card_text import share_cells
from inference.model.variants import open_variant
from tests.inference.conftest import FINDINGS, planted_images
from training.measures.conformal import ABSENT, PRESENT, answers_at, fit_bounds

MODES = ("torch", "fp32", "fp16", "onnx", "int8")
RATE = 0.2


@pytest.fixture(scope="module")
def folder(served, fp32, int8, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unsure") / "model"
    shutil.copytree(fp32.parent, folder)
    served.save(folder / "torch")
    return folder


def test_each_precision_gets_bounds_of_its_own_answers_and_answers_as_before(folder, splits, served):
    before = {mode: open_variant(mode, folder / mode) for mode in MODES}
    predicts = {mode: predict for mode, (predict, _) in before.items()}
    scored = score_split(predicts, splits["val"], 16, served.properties)
    scored.probabilities["fp16"][0, 0] = np.nan
    scored.labels[0, 0] = 1
    add_bounds(folder, scored, RATE)
    after = {mode: open_variant(mode, folder / mode) for mode in MODES}
    again = score_split({mode: predict for mode, (predict, _) in after.items()}, splits["val"], 16, served.properties)
    for mode in MODES:
        properties = after[mode][1]
        assert properties == replace(before[mode][1], unsure=properties.unsure)
        if mode == "fp16":
            # A finding whose probabilities are not all finite is always unsure.
            assert properties.unsure["absent_below"][0] is properties.unsure["present_above"][0] is None
            scored.probabilities[mode][0, 0] = again.probabilities[mode][0, 0]
        else:
            bounds = fit_bounds(scored.labels[:, :2], scored.probabilities[mode][:, :2], scored.patients, RATE)
            assert properties.unsure["absent_below"][:2] == bounds.absent_below.tolist()
            assert properties.unsure["present_above"][:2] == bounds.present_above.tolist()
        # Nobody has the third finding.
        assert properties.unsure["absent_below"][2] is None and properties.unsure["patients_with"][2] == 0
        np.testing.assert_array_equal(again.probabilities[mode], scored.probabilities[mode])
    assert after["int8"][1].unsure["absent_below"] != after["fp32"][1].unsure["absent_below"]
    # The graphs that were open meanwhile still answer.
    assert score_split(predicts, splits["val"], 16, served.properties).probabilities.keys() == set(MODES)

    properties = after["int8"][1]
    test = score_split({"int8": after["int8"][0]}, splits["test"], 16, properties)
    described = describe_answers(properties, test, "int8", seed=0)
    assert described["error_rate"] == RATE and list(described["findings"]) == FINDINGS
    for finding in FINDINGS[:2]:
        facts = described["findings"][finding]
        shares = [facts[share]["value"] for share in SHARES]
        # 128 films of as many patients, some 35 of whom have the finding.
        assert 0 <= shares[0] <= RATE + 0.25 and 0 <= shares[1] <= RATE + 0.15 and 0 <= shares[2] < 1
        assert all(facts[share]["low"] <= facts[share]["value"] <= facts[share]["high"] for share in SHARES)
    assert share_cells(described["findings"]["Never"])[0] == "never"
    # As in service: what is unlike the training data gets no answer.
    strange = describe_answers(replace(properties, distance_threshold=-1), test, "int8", seed=0)
    assert strange["findings"][FINDINGS[0]]["unsure"]["value"] == 0


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_on_fresh_films_errors_are_as_frequent_as_stated(int8, rate):
    """The quantised network answers new films; each trial chooses bounds on some and asks about another one."""
    rng, trials = np.random.default_rng(0), 500
    pixels, labels, _ = planted_images(800, rng)
    probabilities = open_variant("int8", int8)[0](pixels).probabilities
    for value, wrong in ((1, ABSENT), (0, PRESENT)):
        known = np.flatnonzero(labels[:, 0] == value)
        errors = 0
        for _ in range(trials):
            new, others = rng.choice(known), rng.permutation(800)[:300]
            val = others[others != new]
            bounds = fit_bounds(labels[val, :1], probabilities[val, :1], val, rate)
            errors += answers_at(probabilities[[new], :1], bounds)[0, 0] == wrong
        # Some 85 of the 300 films have the finding, and a bound is as fine as one of them.
        assert binom.ppf(1e-4, trials, rate - 1 / 60) <= errors <= binom.ppf(1 - 1e-4, trials, rate)


def test_findings_of_too_few_patients_are_named_and_a_split_that_is_too_small_is_refused(splits):
    (line,) = check_error_rate(FINDINGS, splits["val"], RATE)
    assert line == (
        "Never: 0 patients with it in the validation split, and an error rate of 0.2 needs 4, so it is never answered "
        "absent"
    )
    labels = np.array([[1, 0]] * 12 + [[0, 1]] * 3 + [[0, 0]] * 8)
    (line,) = lacking(["A", "B"], labels, np.arange(23), 0.1, "the films")
    assert line.startswith("B: 3 patients with it in the films, and an error rate of 0.1 needs 9")
    with pytest.raises(InputError) as refused:
        lacking(["A", "B"], labels, np.arange(23), 0.08, "the films")
    said = str(refused.value)
    assert "0.08 needs 12 patients" in said and "A comes nearest, with 11 patients" in said
    assert "inference.error_rate of at least 0.0834" in said
    assert lacking(["A", "B"], labels, np.arange(23), 0.0834, "the films")
    with pytest.raises(InputError, match=r"inference.error_rate of 0 \(no such answers\)"):
        lacking(["A"], labels[:12, :1], np.arange(12), 0.1, "the films")
