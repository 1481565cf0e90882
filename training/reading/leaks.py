"""Has a model seen today's test patients? A table's patients may change their splits from version to version."""

from collections.abc import Iterable

import pandas as pd

from etl.contract.schema import Card
from etl.contract.table import read_labels, snapshot_files


def seen_in_test(shards: str, card: Card, lineages: Iterable[dict]) -> set[str]:
    """Patients of the card's test split whom one of the models was trained on, or chosen by.

    lineages: delta_table_id and delta_version of each model's training and of what it began with, see
    Checkpoint.ancestors; one of another table, or of none, cannot be known to have seen anybody.
    Raises InputError where one's version of this table is gone.
    """
    versions = {one["delta_version"] for one in lineages if one.get("delta_table_id") == card.delta_table_id}
    # What has trained on this very version has the same test split.
    trained = [patients_of(shards, version, ("train", "val")) for version in versions - {card.delta_version}]
    return set().union(*trained) & patients_of(shards, card.delta_version, ("test",)) if trained else set()


def patients_of(shards: str, version: int, splits: Iterable[str]) -> set[str]:
    """patient_id of every image of these splits in a version of the table."""
    files = [file for split in splits for file in snapshot_files(shards, version, split)]
    return set(pd.concat(map(read_labels, files))["patient_id"]) if files else set()
