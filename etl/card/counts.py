"""Counts for the dataset card, taken from the written files, not from the plan."""

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.words import counted
from etl.contract.quarantine import kinds_of
from etl.contract.schema import SPLITS, image_column
from etl.sources.split import find_leaks


def describe_splits(rows: pd.DataFrame, findings: list[str]) -> dict:
    """Counts per split for the card: images, patients, boxed, known, positives, percentages.

    rows: patient_id, split, findings (arrays in the order of `findings`) and boxes of every row of the table.
    Raises InputError for a patient in two splits or a split without images.
    """
    check_splits(rows)
    leaks = find_leaks(rows[["patient_id", "split"]])
    if leaks:
        raise InputError(
            f"{counted(len(leaks), 'patient is', 'patients are')} in more than one split of the written table, "
            f"such as {leaks[:3]}"
        )
    return count_labels(rows, findings)


def count_labels(rows: pd.DataFrame, findings: list[str]) -> dict:
    """describe_splits without its checks, for part of a table's rows, which may have no image in a split."""
    described = {"images": {}, "patients": {}, "boxed": {}, "known": {}, "positives": {}, "percentages": {}}
    for split in SPLITS:
        part = rows[rows.split == split]
        labels = np.array(part.findings.to_list(), np.float64).reshape(len(part), len(findings))
        known, positives = (~np.isnan(labels)).sum(axis=0), (labels == 1).sum(axis=0)
        percentages = np.divide(100 * positives, known, out=np.zeros(len(findings)), where=known > 0)
        described["images"][split] = len(part)
        described["patients"][split] = int(part.patient_id.nunique())
        described["boxed"][split] = int((part.boxes.map(len) > 0).sum())
        described["known"][split] = dict(zip(findings, known.tolist(), strict=True))
        described["positives"][split] = dict(zip(findings, positives.tolist(), strict=True))
        described["percentages"][split] = dict(zip(findings, percentages.round(4).tolist(), strict=True))
    return described


def count_whole(rows: pd.DataFrame) -> dict[str, int]:
    """Images per split that were not cropped. rows: split and crop of every row of a table made with etl.crop."""
    return {split: int(rows.crop[rows.split == split].isna().sum()) for split in SPLITS}


def describe_whole(kept_whole: dict[str, int], images: dict[str, int]) -> str:
    """Such as `12 of 300 films kept whole: no lung field found`; both arguments as in Card, per split."""
    whole, films = sum(kept_whole.values()), counted(sum(images.values()), "film")
    return f"{whole:,} of {films} kept whole: no lung field found" if whole else f"{films}, none kept whole"


def count_masks(rows: pd.DataFrame) -> dict:
    """Card.masks of these rows: image_id, split and mask_fault of every row of a table that was made with etl.masks.

    Raises InputError if no image has a mask.
    """
    has = rows.mask_fault.isna()
    without = rows[~has].sort_values("image_id")
    kinds = kinds_of(without.mask_fault)
    faults = {kind: {"images": len(part), "first": part.image_id.iloc[0]} for kind, part in without.groupby(kinds)}
    masks = {"images": {split: int((has & (rows.split == split)).sum()) for split in SPLITS}, "faults": faults}
    if not has.any():
        raise InputError(f"no image has a mask: {'; '.join(describe_masks(masks))}: check the files of etl.masks")
    return masks


def describe_masks(masks: dict) -> list[str]:
    """A sentence for each reason why images have no mask. masks: Card.masks."""
    return [f"{fault['images']:,} {kind} (such as {fault['first']})" for kind, fault in masks["faults"].items()]


def describe_left_out(left_out: dict[str, int]) -> list[str]:
    """One sentence per reason, such as `806 .png, 3 .txt: not listed in labels.csv`. left_out: from Manifest."""
    kinds: dict[str, list[str]] = {}
    for name, number in left_out.items():
        kind, _, why = name.partition(", ")
        kinds.setdefault(why, []).append(f"{number:,} {kind}")
    return [", ".join(numbers) + (f": {why}" if why else "") for why, numbers in kinds.items()]


def check_splits(images: pd.DataFrame) -> None:
    """Raises InputError, with the next step for what is wrong, if a split has no images.

    images: patient_id and split; in a manifest also `reason`, why an image is left out, or None.
    """
    out = images["reason"].notna() if "reason" in images else pd.Series(False, images.index)
    used = images[~out]
    numbers = used.split.value_counts().to_dict()
    empty = next((split for split in SPLITS if split not in numbers), None)
    if not empty:
        return
    left_out = images[out & ((images.split == empty) | used.empty)]
    patients = used.patient_id.nunique()
    if len(left_out):
        reasons = "; ".join(f"{number:,} {kind}" for kind, number in kinds_of(left_out.reason).value_counts().items())
        said = counted(len(left_out), "image is", "images are")
        why = f": its {said} left out ({reasons}): change what leaves them out, or the split"
    elif patients < len(SPLITS):
        why = (
            f": all images are of {counted(patients, 'patient')}, and each split needs one: check "
            "etl.columns.patient, or add patients"
        )
    else:
        why = (
            ": check the lists or the split column of the source, or if the split is hashed change etl.val_fraction, "
            f"etl.test_fraction or etl.seed (images per split: {numbers})"
        )
    raise InputError(f"the {empty} split has no images{why}")


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
