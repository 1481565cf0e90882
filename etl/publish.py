"""One run of the ETL as one new version: both tables written, what was written checked, and only then the card."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from conf.errors import InputError
from conf.settings import Settings
from conf.workspace import Workspace
from etl.card import describe_pixels, describe_splits
from etl.manifest import Manifest
from etl.schema import Card
from etl.shards import SparkSession, restored_on_error, write_shards
from etl.table import latest_version, read_rows, table_id, write_quarantine


def publish(
    spark: SparkSession, settings: Settings, workspace: Workspace, source: Path, manifest: Manifest
) -> tuple[Card, dict]:
    """Writes both tables, checks what was written, and only then the card.

    Returns the card and what write_shards observed. Raises InputError where too many images are bad, a split is empty
    or a patient is in two. Whatever it raises, the old version and its card stay.
    """
    etl = settings.etl
    with restored_on_error(spark, workspace.shards):
        placed = manifest.images.split.notna()
        observed = write_shards(spark, manifest.images[placed], workspace.shards, etl)
        bad = pd.concat(
            [
                pd.DataFrame(observed["bad"], columns=["image_id", "path", "reason"]),
                manifest.images[~placed].assign(reason="in no split")[["image_id", "path", "reason"]],
            ]
        )
        version = latest_version(workspace.shards)
        rows = read_rows(workspace.shards, version, ["image_id", "patient_id", "findings"])
        check_images(manifest.images.image_id, rows.image_id, bad, etl.max_quarantined_fraction)
        # The sums of the pixels were observed on the way; a row that was observed twice would be in them twice.
        assert observed["rows"] == len(rows), f"{observed['rows']} rows observed, {len(rows)} in the table"
        described = describe_splits(rows, manifest.findings)
        quarantine_version = write_quarantine(workspace.quarantine, bad)
        card = Card(
            delta_table_id=table_id(workspace.shards),
            delta_version=version,
            quarantine_version=quarantine_version,
            findings=manifest.findings,
            sizes_px=etl.sizes_px,
            **described,
            **describe_pixels(observed, etl.sizes_px, described["images"]["train"]),
            images_listed=manifest.listed,
            images_absent=manifest.absent,
            images_unlisted=manifest.unlisted,
            images_quarantined=len(bad),
            source=str(source),
            source_sha256=manifest.sha256,
            settings=asdict(etl),
        )
        card.write(workspace.card)
        return card, observed


def check_images(images: pd.Series, written: pd.Series, bad: pd.DataFrame, max_fraction: float) -> None:
    """Every image is once in the table or once in quarantine, and not too many are in quarantine.

    images, written: image ids of the manifest and of the table as read back. bad: columns image_id and reason.
    """
    listed, found = Counter(images), Counter([*written, *bad.image_id])
    lost, surplus = sorted(listed - found), sorted(found - listed)
    assert listed == found, f"of {len(images)} images, lost: {lost[:3]}, twice or of no manifest: {surplus[:3]}"
    if len(bad) > max_fraction * len(images):
        reasons = bad.reason.value_counts().head(3).to_dict()
        raise InputError(
            f"{len(bad)} of {len(images)} images are bad, more than etl.max_quarantined_fraction ({max_fraction}) "
            f"allows; most frequent reasons: {reasons}. The table keeps its old version"
        )
