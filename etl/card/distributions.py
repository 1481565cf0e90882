"""Distributions of images and patients over studies, ages, sexes and views per split: counts and figures."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from markupsafe import Markup

from conf.words import SEXES, VIEWS
from etl.card.figures import draw_groups
from etl.contract.schema import SPLITS

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Distribution:
    """How the images or patients of each split are distributed over categories: a figure and its counts."""

    title: str
    unit: str
    """what is counted: images or patients"""
    figure: Markup | None
    """None if nothing is known"""
    counts: list[tuple[str, list[int]]]
    """category and its number per split"""


def describe_patients(rows: pd.DataFrame) -> list[Distribution]:
    """Images per patient, follow-ups, ages by sex and views; rows as in page.write_card_page."""
    return [_images_per_patient(rows), _follow_ups(rows), _ages_by_sex(rows), _views(rows)]


def _images_per_patient(rows: pd.DataFrame) -> Distribution:
    patients = rows.groupby(["split", "patient_id"]).size().rename("images").reset_index()
    categories = _bin(patients.images, [1, 2, 3, 4, 5, 10, 20, 50, 100])
    panels = {"": _count(categories, patients.split)}
    return _distribute("per-patient", "Images per patient", panels, "images of one patient", "patients")


def _follow_ups(rows: pd.DataFrame) -> Distribution:
    panels = {"": _count(_bin(rows.follow_up, [0, 1, 2, 3, 5, 10, 20, 50, 100]), rows.split)}
    return _distribute("follow-ups", "Follow-ups", panels, "number of the study of this patient, from 0", "images")


def _views(rows: pd.DataFrame) -> Distribution:
    panels = {"": _count(_words(rows["view"], VIEWS), rows.split)}
    return _distribute("views", "View position", panels, "view position", "images")


def _ages_by_sex(rows: pd.DataFrame) -> Distribution:
    ages, sexes = _bin(rows.age_years, list(range(0, 100, 10))), _words(rows["sex"], SEXES)
    used = _count(ages, rows.split).index
    panels = {}
    for sex in sexes.categories[np.unique(sexes.codes)]:
        chosen = sexes == sex
        panels[f"sex {sex}"] = _count(ages[chosen], rows.split[chosen]).reindex(used, fill_value=0)
    return _distribute("ages", "Age by sex", panels, "age in years", "images")


def _words(cells: pd.Series, words: tuple[str, ...]) -> pd.Categorical:
    """Each cell as one of the words, or as unknown if it is missing."""
    return pd.Categorical(cells.astype(object).where(cells.notna(), UNKNOWN), [*words, UNKNOWN])


def _bin(cells: pd.Series, starts: list[int]) -> pd.Categorical:
    """Each number as one of the ranges that begin at `starts` (the last is open), or as unknown if it is missing."""
    numbers = pd.to_numeric(cells).to_numpy(dtype=np.float64, na_value=np.nan)
    names = [str(low) if low + 1 == high else f"{low}\N{EN DASH}{high - 1}" for low, high in pairwise(starts)]
    names += [f"{starts[-1]}+", UNKNOWN]
    places = np.searchsorted(starts, numbers, side="right") - 1
    return pd.Categorical.from_codes(np.where(np.isnan(numbers), len(starts), places), names)


def _count(categories: pd.Categorical, splits: pd.Series) -> pd.DataFrame:
    """Rows per category and split, up to the last category in use; unknown only if it has rows."""
    assert (categories.codes >= 0).all(), f"value outside {list(categories.categories)}: the table breaks its contract"
    counts = pd.crosstab(categories, splits.to_numpy(), dropna=False).reindex(
        index=categories.categories, columns=SPLITS, fill_value=0
    )
    in_use = counts.sum(axis=1).to_numpy() > 0
    last = np.flatnonzero(in_use[:-1]).max(initial=-1)
    return counts[(np.arange(len(counts)) <= last) | (in_use & (counts.index == UNKNOWN))]


def _distribute(name: str, title: str, panels: dict[str, pd.DataFrame], xlabel: str, unit: str) -> Distribution:
    """Draws the counts of each panel as one figure. panels: title -> counts, all with the same categories."""
    totals = sum(counts.sum() for counts in panels.values())
    categories = list(next(iter(panels.values())).index)
    figure = draw_groups(
        name,
        f"Bars: {title.lower()}, per split; the counts are in the table below.",
        categories,
        {
            panel: {split: (100 * counts[split] / max(totals[split], 1)).to_list() for split in SPLITS}
            for panel, counts in panels.items()
        },
        xlabel,
        f"% of the split's {unit}",
    )
    counts = [
        (f"{panel}, {category}" if panel else category, numbers.to_list())
        for panel, table in panels.items()
        for category, numbers in table.iterrows()
    ]
    return Distribution(title, unit, None if categories == [UNKNOWN] else figure, counts)
