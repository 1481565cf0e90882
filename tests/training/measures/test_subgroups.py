import numpy as np
import pandas as pd
import pytest

from training.measures.intervals import bootstrap_areas
from training.measures.metrics import auroc_per_finding, mean_over_findings
from training.measures.subgroups import group_images, subgroup_gaps, subgroup_table

FINDINGS = ["Effusion", "Mass"]


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 2)) < 0.4).astype(np.float32)
    labels[::10, 1] = np.nan
    images = pd.DataFrame(
        {
            "patient_id": [f"p{row // 2}" for row in range(120)],
            "sex": ["F", "F", "M", "M", None, None] * 20,
            "age_years": pd.array([10.0, 50.0, 90.0, None] * 30, dtype="Float32"),
            "view": ["PA"] * 100 + ["AP"] * 20,
        }
    )
    scores = rng.normal(size=labels.shape) + np.nan_to_num(labels)
    return labels, scores, images


def test_bands_of_age_begin_with_their_first_birthday():
    ages = [0, 17.99, 18, 39, 40, 59, 60, 79, 80, 120, None, -1]
    images = pd.DataFrame({"sex": "F", "age_years": pd.array(ages, dtype="Float32"), "view": "PA"})
    bands = ["0-17"] * 2 + ["18-39"] * 2 + ["40-59"] * 2 + ["60-79"] * 2 + ["80+"] * 2 + ["unknown"] * 2
    assert list(group_images(images)["age"]) == bands


def test_words_outside_the_contract_are_unknown():
    cells = pd.Series(["F", "M", None, "other", pd.NA])
    groups = group_images(pd.DataFrame({"sex": cells, "age_years": np.nan, "view": cells}))
    assert list(groups["sex"]) == ["F", "M", "unknown", "unknown", "unknown"]
    assert set(groups["view"]) == set(groups["age"]) == {"unknown"}


def test_several_sources_are_groups_and_a_renamed_folder_is_not():
    attributes = {"sex": ["F"] * 3, "age_years": np.nan, "view": "PA"}
    images = pd.DataFrame({"image_id": ["b/1", "a/1", "b/2"], "source": ["b", "a", "b"], **attributes})
    assert list(group_images(images)["source"]) == ["b", "a", "b"]
    assert list(group_images(images)["source"].categories) == ["a", "b", "unknown"]
    for other in (
        images.assign(source="b", image_id=["b/1", "b/2", "b/3"]),
        images.assign(image_id=["1.png", "2.png", "x/3.png"]),
        images.assign(source=[None, "a", "b"]),
        images.drop(columns="source"),
    ):
        assert "source" not in group_images(other)


def test_a_row_measures_the_images_of_its_group_alone(predictions):
    labels, scores, images = predictions
    table = subgroup_table(labels, scores, images, FINDINGS, num_resamples=20, seed=4)
    assert len(table) == (3 + 4 + 2) * 3
    assert list(table["group"].unique()) == ["F", "M", "unknown", "0-17", "40-59", "80+", "PA", "AP"]
    men = (images["sex"] == "M").to_numpy()
    rows = table[(table["attribute"] == "sex") & (table["group"] == "M")].set_index("finding")
    aurocs = auroc_per_finding(labels[men], scores[men])
    np.testing.assert_allclose(rows["auroc"], [*aurocs, mean_over_findings(aurocs)])
    expected = bootstrap_areas(labels[men], scores[men], images["patient_id"][men], num_resamples=20, seed=4).auroc
    for name in ("low", "high", "num_resamples"):
        np.testing.assert_array_equal(rows[name], getattr(expected, name))
    mass = labels[men, 1]
    assert rows.loc["Mass", "positives"] == (mass == 1).sum()
    assert rows.loc["Mass", "negatives"] == (mass == 0).sum()
    assert rows.loc["Mass", "images"] == (~np.isnan(mass)).sum()
    assert rows.loc["Effusion", ["images", "patients"]].tolist() == [40, 20]
    assert rows.loc["mean", ["images", "patients"]].tolist() == [40, 20]
    assert rows.loc["mean", "positives"] == (labels[men] == 1).sum()


def test_each_image_is_in_one_group_of_each_attribute(predictions):
    labels, scores, images = predictions
    table = subgroup_table(labels, scores, images, FINDINGS, num_resamples=1, seed=0)
    sums = table.groupby(["attribute", "finding"])[["images", "positives", "negatives"]].sum()
    for attribute in ("sex", "age", "view"):
        for column, finding in enumerate(FINDINGS):
            counts = [(~np.isnan(labels[:, column])).sum(), *((labels[:, column] == value).sum() for value in (1, 0))]
            assert sums.loc[(attribute, finding)].tolist() == counts


def make_table(*rows):
    columns = ["attribute", "group", "finding", "positives", "negatives", "auroc"]
    return pd.DataFrame(rows, columns=columns)


def test_a_gap_is_between_the_groups_with_enough_of_a_finding():
    table = make_table(
        ("age", "0-17", "Effusion", 10, 10, 0.9),
        ("age", "0-17", "Mass", 4, 90, 0.1),
        ("age", "0-17", "Nodule", 3, 90, 0.2),
        ("age", "0-17", "mean", 14, 100, 0.5),
        ("age", "18-39", "Effusion", 10, 10, 0.7),
        ("age", "18-39", "Mass", 10, 10, 0.8),
        ("age", "18-39", "Nodule", 3, 90, 0.3),
        ("age", "18-39", "mean", 20, 20, 0.75),
        ("age", "40-59", "Effusion", 10, 10, 0.8),
        ("age", "40-59", "Mass", 10, 10, 0.6),
        ("age", "40-59", "Nodule", 10, 90, 0.9),
        ("age", "40-59", "mean", 20, 20, 0.7),
        ("view", "PA", "Effusion", 90, 4, 0.9),
        ("view", "PA", "Mass", 0, 94, np.nan),
        ("view", "PA", "Nodule", 0, 94, np.nan),
        ("view", "PA", "mean", 90, 98, 0.9),
    )
    gaps = subgroup_gaps(table, min_positives=5).set_index(["attribute", "finding"])
    assert gaps.index.tolist() == [(a, f) for a in ("age", "view") for f in ("Effusion", "Mass", "Nodule", "mean")]
    assert gaps.loc["age", "gap"].tolist() == pytest.approx([0.2, 0.2, np.nan, 0.05], nan_ok=True)
    assert gaps.loc["age", "best"].tolist() == ["0-17", "18-39", None, "18-39"]
    assert gaps.loc["age", "worst"].tolist() == ["18-39", "40-59", None, "40-59"]
    assert gaps.loc["age", "num_groups"].tolist() == [3, 2, 1, 2]
    assert gaps.loc["age", "num_findings"].tolist() == [1, 1, 1, 2]
    assert gaps.loc["view", "gap"].isna().all()
    # With fewer positives required, the youngest group counts for both findings.
    assert subgroup_gaps(table, min_positives=4).loc[1, "gap"] == pytest.approx(0.7)


def test_a_wrong_number_of_rows_or_findings_is_refused(predictions):
    labels, scores, images = predictions
    with pytest.raises(ValueError, match=r"\(120, 2\).*\(119, 2\)"):
        subgroup_table(labels, scores, images[1:], FINDINGS, num_resamples=1, seed=0)
    with pytest.raises(ValueError, match=r"\(120, 2\).*\(120, 1\)"):
        subgroup_table(labels, scores, images, FINDINGS[:1], num_resamples=1, seed=0)
