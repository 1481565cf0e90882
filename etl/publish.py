"""One run of the ETL as one new version: both tables written, what was written checked, and only then the card."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from conf.errors import InputError
from conf.settings import Settings
from conf.workspace import Workspace
from etl.card import describe_pixels, describe_splits
from etl.nih import Manifest
from etl.schema import NIH_FINDINGS, Card
from etl.shards import SparkSession, describe_rows, latest_version, restore, write_quarantine, write_shards


def publish(
    spark: SparkSession, settings: Settings, workspace: Workspace, source: Path, manifest: Manifest
) -> tuple[Card, dict]:
    """Writes both tables, checks what was written, and only then the card.

    Returns the card and what write_shards observed. Raises InputError, and leaves the old version, where too many
    images are bad, a split is empty or a patient is in two.
    """
    etl = settings.etl
    before = latest_version(spark, workspace.shards)
    placed = manifest.images.split.notna()
    observed = write_shards(spark, manifest.images[placed], workspace.shards, etl)
    bad = pd.concat(
        [
            pd.DataFrame(observed["bad"], columns=["image_id", "path", "reason"]),
            manifest.images[~placed].assign(reason="in neither split list")[["image_id", "path", "reason"]],
        ]
    )
    version = latest_version(spark, workspace.shards)
    try:
        check_counts(manifest, observed["rows"], bad, etl.max_quarantined_fraction)
        rows = describe_rows(spark, workspace.shards, version)
        described = describe_splits(rows, list(NIH_FINDINGS))
    except InputError:
        if before is not None:
            restore(spark, workspace.shards, before)
        raise
    write_quarantine(spark, bad, workspace.quarantine)
    card = Card(
        delta_version=version,
        quarantine_version=latest_version(spark, workspace.quarantine),
        findings=list(NIH_FINDINGS),
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


def check_counts(manifest: Manifest, rows: int, bad: pd.DataFrame, max_fraction: float) -> None:
    """Every image is a row or quarantined, and not too many are quarantined."""
    images = len(manifest.images)
    assert rows + len(bad) == images, f"{images} images, {rows} rows and {len(bad)} quarantined: some were lost"
    if len(bad) > max_fraction * images:
        reasons = bad.reason.value_counts().head(3).to_dict()
        raise InputError(
            f"{len(bad)} of {images} images are bad, more than etl.max_quarantined_fraction ({max_fraction}) allows; "
            f"most frequent reasons: {reasons}. The table keeps its old version"
        )
