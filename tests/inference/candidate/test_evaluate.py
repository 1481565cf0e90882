import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from inference.candidate.gate import decide
from inference.candidate.measuring.baseline import ThumbnailBaseline
from inference.candidate.measuring.evaluate import auroc_differences, auroc_intervals, score_split
from inference.candidate.measuring.localisation import summarise
from inference.model.graphs import Answer, compile_graph, open_graph
from inference.model.networks.fitted import torch_predict


@pytest.fixture(scope="module")
def scored(served, splits, fp32, int8, damaged_int8):
    """The test split, scored by each variant."""
    variants = {
        "baseline": ThumbnailBaseline(splits["train"], seed=0).predict,
        "torch": torch_predict(served.network),
        "fp32": compile_graph(open_graph(fp32)),
        "int8": compile_graph(open_graph(int8)),
        "damaged": compile_graph(open_graph(damaged_int8)),
    }
    return score_split(variants, splits["test"], 16, served.properties)


def test_every_image_is_scored_once_by_each_variant(scored, splits):
    assert len(scored.labels) == len(scored.images) == splits["test"].rows == 128
    assert all(values.shape == scored.labels.shape for values in scored.probabilities.values())
    assert set(scored.distances) == {"torch", "fp32", "int8", "damaged"}
    np.testing.assert_allclose(scored.probabilities["fp32"], scored.probabilities["torch"], atol=1e-5)
    assert len(np.unique(scored.probabilities["int8"][:, 0])) > 64
    assert len(set(scored.patients)) == 128


def test_trained_network_beats_chance_and_thumbnails_where_texture_matters(scored):
    aurocs = {name: auroc_intervals(scored, name, seed=0) for name in scored.probabilities}
    assert aurocs["torch"].low[:2].min() > 0.65
    # Area averages keep a bright corner and lose chequers.
    assert aurocs["baseline"].values[0] > 0.8
    assert aurocs["torch"].values[1] > aurocs["baseline"].values[1] + 0.2
    known = ~np.isnan(scored.labels[:, 0])
    expected = roc_auc_score(scored.labels[known, 0], scored.probabilities["int8"][known, 0])
    assert aurocs["int8"].values[0] == pytest.approx(expected)


def test_finding_that_never_occurs_is_undefined_for_all(scored):
    assert all(np.isnan(auroc_intervals(scored, name, seed=0).values[2]) for name in scored.probabilities)


def test_gate_takes_the_int8_model_and_refuses_a_damaged_one(scored, served):
    fp32, int8, damaged = (auroc_intervals(scored, name, 0) for name in ("fp32", "int8", "damaged"))
    findings = served.properties.findings
    bounds = 0.03, 0.06, scored.num_patients
    assert decide(findings, fp32, int8, auroc_differences(scored, "fp32", "int8", 0), *bounds).passed
    refused = decide(findings, fp32, damaged, auroc_differences(scored, "fp32", "damaged", 0), *bounds)
    assert not refused.passed
    assert refused.mean_drop.value > 0.3


def test_the_map_of_a_texture_finds_its_place_more_often_than_chance(scored):
    summary = summarise(scored.overlaps["fp32"], ["Bright_Corner", "Chequers", "Never"])
    assert summary["Chequers"]["images"] > 20
    assert summary["Chequers"]["pointing_game"] > 2 * summary["Chequers"]["chance"]
    # All maps of an erased classifier are flat.
    assert summarise(scored.overlaps["damaged"], ["", "", ""])["all"]["pointing_game"] < 0.5


def test_scores_that_are_not_finite_have_no_auroc(splits, served):
    def broken(pixels: np.ndarray) -> Answer:
        means = pixels.mean(axis=(1, 2))[:, None].repeat(3, axis=1)
        means[:, 1] = np.nan
        return Answer(means)

    scored = score_split({"broken": broken}, splits["test"], 16, served.properties)
    aurocs = auroc_intervals(scored, "broken", seed=0)
    np.testing.assert_array_equal(np.isnan(aurocs.values), [False, True, True, False])


def test_two_passes_over_a_split_join(scored, splits, int8, served):
    again = score_split({"int8": compile_graph(open_graph(int8))}, splits["test"], 64, served.properties)
    joined = scored.joined(again)
    assert set(joined.probabilities) == set(scored.probabilities)
    np.testing.assert_allclose(again.probabilities["int8"], scored.probabilities["int8"], atol=1e-5)
