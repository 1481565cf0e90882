"""Accounts for every image: once in the table, or once in quarantine, where copies of others go too."""

from collections import Counter

import pandas as pd

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.images.misfits import is_misfit
from etl.contract.quarantine import kinds_of
from etl.writing.update import ANOTHER_PATIENT, SAME_PATIENT


def find_duplicates(rows: pd.DataFrame, there: set[str], settings: Etl) -> pd.DataFrame:
    """Images with the same stored pixels as another, as far as settings.quality excludes them.

    rows: image_id, patient_id and pixel_hash. there: images that are in the table already. They stay the originals of
    new copies; otherwise the smallest image_id is the original. Returns image_id, reason, same_as (the original).
    """
    order = rows.assign(comes=~rows.image_id.isin(there)).sort_values(["comes", "image_id"])
    quality = settings.quality
    out = []
    if quality.duplicates:
        first = order.groupby(["pixel_hash", "patient_id"]).image_id.transform("first")
        out.append(_copies(order, first, SAME_PATIENT))
        order = order[order.image_id == first]
    if quality.duplicates_across_patients:
        groups = order.groupby("pixel_hash")
        others = groups.patient_id.transform("first") != order.patient_id
        out.append(_copies(order[others], groups.image_id.transform("first")[others], ANOTHER_PATIENT))
    return pd.concat([pd.DataFrame(columns=["image_id", "reason", "same_as"], dtype=object), *out], ignore_index=True)


def _copies(rows: pd.DataFrame, origins: pd.Series, whose: str) -> pd.DataFrame:
    copies, origins = rows.image_id[rows.image_id != origins], origins[rows.image_id != origins]
    reasons = "duplicate: same pixels as " + origins + whose
    return pd.DataFrame({"image_id": copies, "reason": reasons, "same_as": origins}, dtype=object)


def check_images(
    images: pd.Series, written: pd.Series, quarantine: pd.DataFrame, max_fraction: float, are_hashed: bool = False
) -> None:
    """Checks that every image is once in the table or once in quarantine, and that not too many are bad.

    images, written: image ids of the manifest and of the files as read back. quarantine: columns of QUARANTINE; a film
    that is not wanted is not bad. are_hashed: whether image ids say nothing of the files. Raises InputError if too many
    are bad.
    """
    listed, found = Counter(images), Counter([*written, *quarantine.image_id])
    lost, surplus = sorted(listed - found), sorted(found - listed)
    assert listed == found, f"of {len(images)} images, lost: {lost[:3]}, duplicated or unlisted: {surplus[:3]}"
    bad = quarantine[quarantine.file_version.notna() & ~quarantine.reason.map(is_misfit).astype(bool)]
    looked_at = len(written) + len(bad)
    if len(bad) > max_fraction * looked_at:
        kinds = bad.groupby(kinds_of(bad.reason)).agg(
            size=("image_id", "size"), first=("image_id", "first"), reason=("reason", "first")
        )
        kinds = kinds.sort_values("size", ascending=False)
        reasons = ", ".join(
            f"{kind} {row['size']} (such as {row['first']}{row.reason.removeprefix(kind)})"
            for kind, row in kinds.iterrows()
        )
        look = "look at these images" + " (dicom_paths.csv in the workspace has their files)" * are_hashed
        raise InputError(
            f"{len(bad)} of {counted(looked_at, 'image')} {'is' if len(bad) == 1 else 'are'} bad, more than "
            f"etl.max_quarantined_fraction ({max_fraction}) allows: {reasons}. Nothing was committed: {look}, leave "
            "them out with etl.exclude, or raise the fraction to find all of them in the quarantine table"
        )
