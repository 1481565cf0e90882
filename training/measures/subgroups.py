"""Is a model equally good for everyone? AUROC by sex, age, view and source, and the gap between groups, as tables."""

import numpy as np
import pandas as pd

from conf.words import SEXES, VIEWS
from training.measures.intervals import bootstrap_areas

UNKNOWN = "unknown"
MEAN = "mean"
# In years; the last band has no upper end.
AGE_STARTS = (0, 18, 40, 60, 80)
AGE_BANDS = ("0-17", "18-39", "40-59", "60-79", "80+")


def group_images(images: pd.DataFrame) -> dict[str, pd.Categorical]:
    """The group of each image by each attribute: `sex` (F, M), `age` (bands of years), `view` (PA, AP, LATERAL) and, of
    a table of several sources, `source`.

    images: one row per image with `sex`, `age_years` and `view` as in the contract of etl/contract/schema.py, and
    perhaps `source` and `image_id`. A value that is missing, a negative age, and any other word belong to the group
    `unknown`. Findings are unequally frequent in sources, so that a model may gain AUROC over all of them just by
    telling them apart (Zech et al., PLoS Medicine 2018), but not within one.
    """
    ages = pd.to_numeric(images["age_years"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bands = pd.cut(ages, [*AGE_STARTS, np.inf], right=False, labels=list(AGE_BANDS))
    attributes = {"sex": (images["sex"], SEXES), "age": (bands, AGE_BANDS), "view": (images["view"], VIEWS)}
    if sources := _several_sources(images):
        attributes["source"] = (images["source"], sources)
    groups = {}
    for attribute, (cells, names) in attributes.items():
        words = pd.Series(np.asarray(cells, dtype=object))
        groups[attribute] = pd.Categorical(words.where(words.isin(names), UNKNOWN), [*names, UNKNOWN])
    return groups


def _several_sources(images: pd.DataFrame) -> tuple[str, ...]:
    """The names of several sources, sorted; empty for one source, which may have had another name in older rows."""
    if "source" not in images or images["source"].isna().any():
        return ()
    names = tuple(sorted(images["source"].unique()))
    # In a table of several sources, the name of an image begins with the name of its source.
    are_kept_apart = images["image_id"].str.partition("/")[0].eq(images["source"]).all()
    return names if len(names) > 1 and are_kept_apart else ()


def subgroup_table(
    labels: np.ndarray,
    scores: np.ndarray,
    images: pd.DataFrame,
    findings: list[str],
    *,
    num_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """AUROC of every group that has images, with its 95% interval over the group's patients.

    labels: (images, findings) 1 present, 0 absent, NaN unknown. scores: the same shape, higher means more likely.
    images: one row per image, in the same order, with `patient_id` and the columns of group_images.
    Returns a row per attribute, group and finding, with a row `mean` after the findings. Its columns are `attribute`,
    `group`, `finding`, `images`, `patients`, `positives`, `negatives`, `auroc`, `low`, `high`, `num_resamples`; NaN is
    undefined. A finding's row counts the images whose label is known. The mean's row counts the images with any known
    label, and the positive and negative labels of all findings. The mean is over the findings that are defined in the
    group, so compare groups with subgroup_gaps, which takes the same findings from each.
    Raises ValueError as bootstrap_areas does, and for a wrong number of rows or findings.
    """
    if len(images) != len(labels) or labels.shape[1:] != (len(findings),):
        raise ValueError(
            f"labels have shape {labels.shape}, expected (images, findings): {(len(images), len(findings))}"
        )
    patients = images["patient_id"].to_numpy()
    parts = []
    for attribute, groups in group_images(images).items():
        for group in groups.categories:
            inside = np.asarray(groups == group)
            if inside.any():
                part = _measure_group(labels[inside], scores[inside], patients[inside], findings, num_resamples, seed)
                parts.append(part.assign(attribute=attribute, group=group))
    table = pd.concat(parts, ignore_index=True)
    return table[["attribute", "group", *table.columns.drop(["attribute", "group"])]]


def _measure_group(
    labels: np.ndarray,
    scores: np.ndarray,
    patients: np.ndarray,
    findings: list[str],
    num_resamples: int,
    seed: int,
) -> pd.DataFrame:
    auroc = bootstrap_areas(labels, scores, patients, num_resamples=num_resamples, seed=seed).auroc
    known, positive = ~np.isnan(labels), labels == 1
    counted = np.column_stack([known, known.any(axis=1)])
    positives = positive.sum(axis=0)
    negatives = known.sum(axis=0) - positives
    return pd.DataFrame(
        {
            "finding": [*findings, MEAN],
            "images": counted.sum(axis=0),
            "patients": [len(np.unique(patients[column])) for column in counted.T],
            "positives": np.append(positives, positives.sum()),
            "negatives": np.append(negatives, negatives.sum()),
            "auroc": auroc.values,
            "low": auroc.low,
            "high": auroc.high,
            "num_resamples": auroc.num_resamples,
        }
    )


def subgroup_gaps(table: pd.DataFrame, min_positives: int) -> pd.DataFrame:
    """Largest minus smallest AUROC over the groups of an attribute with enough labels of a finding, `unknown` included.

    table: from subgroup_table. min_positives: fewest positives, and fewest negatives, that a group needs.
    Returns a row per attribute and finding, with a row `mean` after the findings. Its columns are `attribute`,
    `finding`, `gap` (0..1, NaN with fewer than two such groups), `best` and `worst` (groups, None without a gap), and
    `num_groups` and `num_findings` compared. The mean's gap compares means over the same findings, those with a gap of
    their own, in the groups that have enough labels of each of them. More groups and fewer positives make a gap larger
    by chance alone, so read it together with the intervals.
    """
    enough = (table["positives"] >= min_positives) & (table["negatives"] >= min_positives)
    measured = table[table["finding"] != MEAN].assign(auroc=table["auroc"].where(enough))
    rows = []
    for attribute, part in measured.groupby("attribute", sort=False):
        aurocs = part.pivot(index="group", columns="finding", values="auroc")[part["finding"].unique()]
        for finding in aurocs:
            rows.append({"attribute": attribute, "finding": finding, **_gap(aurocs[[finding]].dropna())})
        of_all = aurocs.loc[:, aurocs.notna().sum() >= 2].dropna()
        rows.append({"attribute": attribute, "finding": MEAN, **_gap(of_all)})
    return pd.DataFrame(rows)


def _gap(aurocs: pd.DataFrame) -> dict:
    """The gap's columns of subgroup_gaps. aurocs: a row per group, a column per finding, all defined."""
    counts = {"num_groups": len(aurocs), "num_findings": aurocs.shape[1]}
    if len(aurocs) < 2 or aurocs.shape[1] == 0:
        return {"gap": np.nan, "best": None, "worst": None, **counts}
    means = aurocs.mean(axis=1)
    return {"gap": float(means.max() - means.min()), "best": means.idxmax(), "worst": means.idxmin(), **counts}
