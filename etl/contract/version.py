"""A table of shards at one version: its place and its card. A command opens it once and passes it on."""

from dataclasses import dataclass, replace

import pandas as pd

from conf.errors import InputError
from conf.workspace import Workspace, opened_place, stored_place
from etl.contract.schema import Card
from etl.contract.table import read_card, read_rows, snapshot_files


@dataclass(frozen=True)
class TableVersion:
    """A table at a version."""

    shards: str
    """folder or address of the Delta table"""
    card: Card
    """the card of this version, with the table's address"""

    @classmethod
    def of(cls, workspace: Workspace, version: int = -1) -> "TableVersion":
        """The version that the workspace's card.json names, or another one of the same table if `version` is 0 or more.

        Raises InputError if there is no card, or no such version.
        """
        card = Card.read(workspace.card)
        newest = cls(workspace.tables(opened_place(card.table, workspace.root))[0], card)
        return newest if version < 0 else newest.at(version)

    def at(self, version: int) -> "TableVersion":
        """Another version of this table. Raises InputError if it is gone or too old for this program."""
        card = read_card(self.shards, version)
        if card is None:
            raise InputError(f"version {version} of {self.shards} was written by an older program: run the ETL again")
        return replace(self, card=replace(card, table=self.card.table))

    def trained_on(self, delta_table_id: str, delta_version: int, trained: str) -> "TableVersion":
        """The version that a model was trained on: a newer one may have other splits.

        trained: what messages call that model. Raises InputError if this is another table, or if the version is gone.
        """
        self._expect(delta_table_id, trained)
        if self.card.delta_version == delta_version:
            return self
        found = self.at(delta_version)
        # This card may be a copy that is older than the table.
        found._expect(delta_table_id, trained)
        return found

    def _expect(self, delta_table_id: str, trained: str) -> None:
        if self.card.delta_table_id != delta_table_id:
            raise InputError(
                f"{self.shards} was made anew since {trained} was trained, or is another table: it is table "
                f"{self.card.delta_table_id}, expected {delta_table_id}. Give the workspace of the table that "
                f"{trained} was trained on, or run `python training/train.py` on this one"
            )

    def files(self, split: str) -> list[str]:
        """Paths or addresses of the split's Parquet files."""
        return snapshot_files(self.shards, self.card.delta_version, split)

    def rows(self, *splits: str) -> pd.DataFrame:
        """One row per image of these splits: all columns but the pixels."""
        return read_rows(self.shards, self.card.delta_version, splits)


def keep_card(card: Card, workspace: Workspace) -> None:
    """Writes card.json, which names the version that other commands read; card.table: the tables' folder or address."""
    replace(card, table=stored_place(card.table, workspace.root)).write(workspace.card)
