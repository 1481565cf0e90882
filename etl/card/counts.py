"""Counts for the dataset card, taken from the written files, not from the plan."""

import numpy as np
import pandas as pd

from conf.errors import InputError
from etl.contract.schema import SPLITS, image_column
from etl.sources.split import find_leaks


def describe_splits(rows: pd.DataFrame, findings: list[str]) -> dict:
    """Counts per split for the card: images, patients, known, positives, percentages.

    rows: patient_id, split and findings (arrays in the order of `findings`) of every row of the table.
    Raises InputError for a patient in two splits or a split without images.
    """
    check_splits(rows.split)
    leaks = find_leaks(rows[["patient_id", "split"]])
    if leaks:
        raise InputError(f"{len(leaks)} patients are in more than one split of the written table, such as {leaks[:3]}")
    described = {"images": {}, "patients": {}, "known": {}, "positives": {}, "percentages": {}}
    for split in SPLITS:
        part = rows[rows.split == split]
        labels = np.stack(part.findings.to_list()).astype(np.float64)
        known, positives = (~np.isnan(labels)).sum(axis=0), (labels == 1).sum(axis=0)
        percentages = np.divide(100 * positives, known, out=np.zeros(len(findings)), where=known > 0)
        described["images"][split] = len(part)
        described["patients"][split] = int(part.patient_id.nunique())
        described["known"][split] = dict(zip(findings, known.tolist(), strict=True))
        described["positives"][split] = dict(zip(findings, positives.tolist(), strict=True))
        described["percentages"][split] = dict(zip(findings, percentages.round(4).tolist(), strict=True))
    return described


def kinds_of(reasons: pd.Series) -> pd.Series:
    """The kind of each quarantine reason: the text before its first colon, without the particulars."""
    return reasons.astype(str).str.split(":").str[0].str.strip()


def check_splits(split: pd.Series) -> None:
    """Raises InputError if a split has no images. split: the split of each image."""
    numbers = split.value_counts().to_dict()
    empty = [name for name in SPLITS if name not in numbers]
    if empty:
        raise InputError(
            f"the {empty[0]} split has no images: check the lists of the source, etl.val_fraction and "
            f"etl.test_fraction (images per split: {numbers})"
        )


def describe_pixels(rows: pd.DataFrame, sizes_px: list[int]) -> dict:
    """Mean and standard deviation of all pixels of these rows per image column, 0..255, for the card.

    rows: rows of the training split, with the mean_S and std_S of each image.
    """
    mean, std = {}, {}
    for size in sizes_px:
        means, deviations = rows[f"mean_{size}"], rows[f"std_{size}"]
        mean[image_column(size)] = average = float(means.mean())
        std[image_column(size)] = float(np.sqrt((deviations**2 + means**2).mean() - average**2))
    return {"pixel_mean": mean, "pixel_std": std}
