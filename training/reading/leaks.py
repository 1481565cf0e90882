"""Finds test patients whom a model has seen: patients may change their splits from one version to the next."""

from collections.abc import Iterable

from etl.contract.table import read_rows
from etl.contract.version import TableVersion


def seen_in_test(table: TableVersion, lineages: Iterable[dict]) -> set[str]:
    """Patients of the table's test split on whom one of the models was trained, or by whom it was chosen.

    lineages: delta_table_id and delta_version of each model's training and of the weights that it began with, see
    Checkpoint.ancestors. A model of another table, or of none, is not known to have seen anybody.
    Raises InputError if a version of this table that a model was trained on is gone.
    """
    card = table.card
    versions = {one["delta_version"] for one in lineages if one.get("delta_table_id") == card.delta_table_id}
    # A model that was trained on this very version has the same test split.
    trained = versions - {card.delta_version}
    if not trained:
        return set()
    seen = (set(read_rows(table.shards, version, ("train", "val"))["patient_id"]) for version in trained)
    return set().union(*seen) & set(table.rows("test")["patient_id"])
