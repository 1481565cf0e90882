"""The ways of quantising a small trained network, and how the gate's decision and the time end them."""

from dataclasses import replace

import numpy as np
import pytest

from conf.settings import Inference
from inference.candidate.incumbent import Incumbent
from inference.candidate.making.quantize import layers_in_fp32
from inference.candidate.measuring.evaluate import Scored, score_split
from inference.candidate.ways import Quantising
from inference.model.graphs import compile_graph, open_graph

# Nothing may be lost.
STRICT = Inference(max_mean_drop=0, max_finding_drop=0, num_calibration_images=32)


@pytest.fixture(scope="module")
def scored(fp32, splits, served) -> Scored:
    predict = compile_graph(open_graph(fp32))
    return score_split({"fp32": predict}, splits["test"], 16, served.properties, end=False)


def perfect(scored: Scored) -> np.ndarray:
    return np.nan_to_num(scored.labels, nan=0.5)


@pytest.fixture
def quantising(fp32, splits, served, scored) -> Quantising:
    """FP32's answers on the test split are perfect, so that 8 bits lose some on every CPU."""
    parts = splits["train"], splits["val"], splits["test"]
    scored = replace(scored, probabilities={"fp32": perfect(scored)})
    return Quantising(fp32, *parts, 0, STRICT, scored, None, served.properties)


def run(quantising: Quantising):
    said = []
    return *quantising.run(said.append), said


def test_a_strict_gate_has_all_ways_tried_and_keeps_the_best(quantising, monkeypatch):
    score = Quantising._score

    def flawless(self, predict, split, name, *rest) -> Scored:
        found = score(self, predict, split, name, *rest)
        return replace(found, probabilities={name: perfect(found)}) if name == "fp32" else found

    monkeypatch.setattr(Quantising, "_score", flawless)
    tries, decision, said = run(quantising)
    assert [one.way.name for one in tries.all] == ["plain", "biases corrected", "sensitive layers in FP32"]
    assert layers_in_fp32(tries.all[0].made.graph) == layers_in_fp32(tries.all[1].made.graph) == []
    assert layers_in_fp32(tries.all[2].made.graph)
    assert decision.passed == any(one.judged.decision.passed for one in tries.all)
    assert decision.passed or tries.best.judged.overrun == min(one.judged.overrun for one in tries.all)
    assert (decision.out_of_time, len(said)) == (False, 3)


def test_a_minute_fraction_leaves_the_first_way_and_says_what_to_raise(quantising):
    tries, decision, said = run(replace(quantising, options=replace(STRICT, max_minutes=1e-4)))
    assert len(tries.all) == 1 and decision.out_of_time
    assert "biases corrected was not tried; sensitive layers in FP32 was not tried: " in said[-1]
    assert "all ways together may take 0.0001 min, raise inference.max_minutes for more" in said[-1]


def test_where_fp32_is_worse_than_the_champion_one_way_is_tried(quantising, scored):
    both = replace(scored, probabilities=scored.probabilities | {"champion": perfect(scored)})
    champion = Incumbent(7, "", predict=lambda pixels: None)
    tries, decision, said = run(replace(quantising, scored=both, champion=champion))
    assert len(tries.all) == 1 and not decision.passed
    assert "below the champion's (version 7)" in said[0]
    assert "train another model" in said[0]


def test_a_champion_that_cannot_be_compared_with_does_not_spoil_the_int8_graph(quantising):
    """A person will decide, by what quantising costs."""
    champion = Incumbent(7, "its images were made otherwise")
    tries, decision, _ = run(replace(quantising, options=replace(STRICT, num_attempts=2), champion=champion))
    assert len(tries.all) == 2
    assert decision.reasons[-1] == "champion version 7 cannot be compared with: its images were made otherwise"


def test_without_auroc_on_the_validation_split_no_layer_is_chosen_by_it(quantising, monkeypatch):
    score = Quantising._score

    def unknown(self, *arguments) -> Scored:
        scored = score(self, *arguments)
        return replace(scored, labels=np.full_like(scored.labels, np.nan))

    monkeypatch.setattr(Quantising, "_score", unknown)
    tries, _, said = run(quantising)
    assert len(tries.all) == 2
    assert "sensitive layers in FP32 was not tried: no finding has an AUROC in the validation split" in said[-1]


def test_what_meets_the_bounds_on_the_validation_split_is_not_searched_for_layers(quantising, splits, monkeypatch):
    score = Quantising._score

    def same(self, predict, split, name, *rest) -> Scored:
        return score(self, self._predict_fp32, split, name, *rest)

    monkeypatch.setattr(Quantising, "_score", same)
    tries, _, said = run(quantising)
    assert len(tries.all) == 2
    assert "meets the bounds on the validation split, by which layers would be chosen" in said[-1]
