import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from inference import evaluate
from inference.baseline import ThumbnailBaseline
from inference.evaluate import aurocs_of_finite, graph_scores, measure_speed, score_split, torch_scores
from inference.gate import decide


@pytest.fixture(scope="module")
def scored(checkpoint, splits, fp32, int8, damaged_int8):
    """Labels of the test split, and scores of each variant."""
    variants = {
        "baseline": ThumbnailBaseline(splits["train"], seed=0).predict,
        "torch": torch_scores(checkpoint.build()),
        "fp32": graph_scores(fp32),
        "int8": graph_scores(int8),
        "damaged": graph_scores(damaged_int8),
    }
    return score_split(variants, splits["test"], 16)


def test_every_image_is_scored_once_by_each_variant(scored, splits):
    labels, scores = scored
    assert len(labels) == splits["test"].rows == 128
    assert all(values.shape == labels.shape for values in scores.values())
    np.testing.assert_allclose(scores["fp32"], scores["torch"], atol=1e-5)
    assert len(np.unique(scores["int8"][:, 0])) > 64


def test_trained_network_beats_chance_and_thumbnails_where_texture_matters(scored):
    labels, scores = scored
    aurocs = {name: aurocs_of_finite(labels, values) for name, values in scores.items()}
    assert aurocs["torch"][:2].min() > 0.75
    # Area averages keep a bright corner and lose chequers.
    assert aurocs["baseline"][0] > 0.8
    assert aurocs["torch"][1] > aurocs["baseline"][1] + 0.2
    known = ~np.isnan(labels[:, 0])
    assert aurocs["int8"][0] == roc_auc_score(labels[known, 0], scores["int8"][known, 0])


def test_finding_that_never_occurs_is_undefined_for_all(scored):
    labels, scores = scored
    assert all(np.isnan(aurocs_of_finite(labels, values)[2]) for values in scores.values())


def test_gate_takes_the_int8_model_and_refuses_a_damaged_one(scored, checkpoint):
    labels, scores = scored
    fp32, int8, damaged = (aurocs_of_finite(labels, scores[name]) for name in ("fp32", "int8", "damaged"))
    assert decide(fp32, int8, checkpoint.findings, 0.02, 0.04).passed
    refused = decide(fp32, damaged, checkpoint.findings, 0.02, 0.04)
    assert not refused.passed
    assert refused.mean_drop > 0.3


def test_scores_that_are_not_finite_have_no_auroc():
    labels = np.array([[0.0, 0.0], [1.0, 1.0]])
    aurocs = aurocs_of_finite(labels, np.array([[0.1, np.nan], [0.9, 0.3]]))
    np.testing.assert_array_equal(aurocs, [1.0, np.nan])


def test_speed_counts_single_images_and_batches():
    calls = []

    def scores(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        return np.zeros((len(pixels), 1))

    speed = measure_speed(scores, 32, batch_size=4)
    assert set(calls) == {1, 4}
    assert 0 < speed.latency_ms <= speed.latency_p95_ms
    assert speed.images_per_s > 0


def test_slow_variant_is_timed_fewer_times(monkeypatch):
    monkeypatch.setattr(evaluate, "TIME_LIMIT_S", 0.0)
    calls = []
    measure_speed(lambda pixels: calls.append(len(pixels)), 32, batch_size=4)
    assert calls.count(1) == evaluate.WARM_UP + evaluate.MIN_REPETITIONS
