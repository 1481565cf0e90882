import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from training.measures.metrics import (
    auroc_per_finding,
    average_precision_per_finding,
    mean_over_findings,
    precision_recall_points,
    ranked_auroc_per_finding,
    roc_points,
    top_k_hits,
)

SCORES = st_np.arrays(np.float64, (12, 2), elements=st.floats(-5, 5, width=16))
LABELS = st_np.arrays(np.float64, (12, 2), elements=st.sampled_from([0.0, 1.0, np.nan]))


@settings(max_examples=50)
@given(LABELS, SCORES)
def test_auroc_is_the_chance_that_a_positive_scores_above_a_negative(labels, scores):
    aurocs = auroc_per_finding(labels, scores)
    for column in range(2):
        positive, negative = (scores[labels[:, column] == value, column] for value in (1, 0))
        if len(positive) and len(negative):
            wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
            assert aurocs[column] == pytest.approx(wins)
        else:
            assert np.isnan(aurocs[column])


@settings(max_examples=50)
@given(LABELS, SCORES.map(np.round))
def test_average_precision_is_the_mean_precision_at_the_score_of_each_positive(labels, scores):
    measured = average_precision_per_finding(labels, scores)
    for column in range(2):
        positive, negative = (scores[labels[:, column] == value, column] for value in (1, 0))
        if len(positive) and len(negative):
            hits, calls = (
                (part >= positive[:, None]).sum(axis=1) for part in (positive, np.append(positive, negative))
            )
            assert measured[column] == pytest.approx((hits / calls).mean())
        else:
            assert np.isnan(measured[column])


@settings(max_examples=50)
@given(LABELS, SCORES.map(np.round))
def test_both_match_scikit_learn_on_the_known_labels(labels, scores):
    known = ~np.isnan(labels[:, 0])
    truth = labels[known, 0]
    if 0 < truth.sum() < len(truth):
        for ours, theirs in (
            (auroc_per_finding, roc_auc_score),
            (ranked_auroc_per_finding, roc_auc_score),
            (average_precision_per_finding, average_precision_score),
        ):
            assert ours(labels, scores)[0] == pytest.approx(theirs(truth, scores[known, 0]), abs=1e-12)


@settings(max_examples=50)
@given(LABELS, SCORES.map(np.round))
def test_the_areas_below_the_curves_are_the_measures(labels, scores):
    areas = auroc_per_finding(labels, scores)[0], average_precision_per_finding(labels, scores)[0]
    if not np.isnan(areas[0]):
        false_positives, true_positives = roc_points(labels, scores, 0)
        assert np.trapz(true_positives, false_positives) == pytest.approx(areas[0])
        recall, precision = precision_recall_points(labels, scores, 0)
        assert recall[0] == 0
        assert recall[-1] == 1
        assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(areas[1])


@pytest.mark.parametrize("measure", [auroc_per_finding, average_precision_per_finding])
def test_a_finding_without_positives_or_negatives_is_undefined_and_left_out_of_the_mean(measure):
    labels = np.array([[0, 0, 1], [1, 0, 1], [0, np.nan, np.nan]])
    scores = np.array([[0.1, 0.3, 0.1], [0.9, 0.1, 0.2], [0.2, 0.5, 0.3]])
    values = measure(labels, scores)
    np.testing.assert_array_equal(values, [1, np.nan, np.nan])
    assert mean_over_findings(values) == 1
    assert np.isnan(mean_over_findings(values[1:]))


def test_an_unknown_label_hides_a_score_that_is_not_finite():
    labels, scores = np.array([[0], [1], [np.nan]]), np.array([[0.1], [0.9], [np.nan]])
    assert auroc_per_finding(labels, scores)[0] == 1


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 1)), r"\(3, 2\).*\(3, 1\)"),
        (np.zeros(3), np.zeros(3), r"\(3,\).*\(images, findings\)"),
        (np.array([[0.0], [-1.0]]), np.zeros((2, 1)), "-1.0"),
        (np.array([[0.0, 1.0]]), np.array([[0.0, np.inf]]), "inf for image 0, finding 1"),
    ],
)
def test_invalid_predictions_are_refused(labels, scores, message):
    for measure in (auroc_per_finding, average_precision_per_finding):
        with pytest.raises(ValueError, match=message):
            measure(labels, scores)


@settings(max_examples=50)
@given(
    scores=st_np.arrays(np.float64, (6, 4), elements=st.floats(-5, 5), unique=True),
    classes=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    k=st.integers(1, 3),
)
def test_top_k_hits_match_scikit_learn(scores, classes, k):
    hits = top_k_hits(np.eye(4)[classes], scores, k)
    assert hits.mean() == top_k_accuracy_score(classes, scores, k=k, labels=range(4))


def test_a_tied_class_ranks_last_and_other_labels_are_refused():
    assert top_k_hits(np.eye(3), np.zeros((3, 3)), 2).tolist() == [False] * 3
    for labels in ([[1, 1]], [[0, 0]], [[1, np.nan]]):
        with pytest.raises(ValueError, match="no class, or more than one"):
            top_k_hits(np.array(labels, float), np.zeros((1, 2)), 1)
