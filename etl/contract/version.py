"""A table of shards at one version: its place and its card. A command opens it once and passes it on."""

from dataclasses import dataclass, replace

import pandas as pd

from conf.errors import InputError
from conf.workspace import Workspace, opened_place, stored_place
from etl.contract.quarantine import read_quarantine
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
    def of(cls, workspace: Workspace, version: int = -1, elsewhere: str = "") -> "TableVersion":
        """The version that the workspace's card.json names, or another one of the same table if `version` is 0 or more.

        elsewhere: etl.table. A workspace without a card, such as that of another host, has its table there, at the
        newest version. Raises InputError if there is no table or no such version, or if the card names another table.
        """
        if elsewhere and not workspace.card.exists():
            newest = cls._newest_in(workspace.tables(elsewhere)[0])
        else:
            card = Card.read(workspace.card)
            newest = cls(workspace.tables(opened_place(card.table, workspace.root))[0], card)
            if elsewhere and newest.shards != workspace.tables(elsewhere)[0]:
                raise InputError(
                    f"etl.table is {elsewhere}, but {workspace.card} names the table {newest.shards}: leave out "
                    "etl.table to take that one, or choose a new workspace for the other with --workspace"
                )
        return newest if version < 0 else newest.at(version)

    @classmethod
    def _newest_in(cls, shards: str) -> "TableVersion":
        card = read_card(shards)
        if card is None:
            raise InputError(
                f"no table of this program's version at {shards}: run `spark-submit etl/preprocess.py` with this "
                "etl.table first"
            )
        return cls(shards, replace(card, table=shards.removesuffix("/shards")))

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

    def quarantined(self, workspace: Workspace) -> pd.DataFrame:
        """The quarantined images of this version, see etl/contract/quarantine.py. workspace: the one that names the
        table. Raises InputError if they cannot be read."""
        place = workspace.tables(opened_place(self.card.table, workspace.root))[1]
        return read_quarantine(place, self.card.quarantine_version)

    def name_in(self, workspace: Workspace) -> None:
        """Writes the card.json of a workspace other than the table's, so that the commands there find this version."""
        keep_card(replace(self.card, table=self.shards.removesuffix("/shards")), workspace)

    def rows(self, *splits: str) -> pd.DataFrame:
        """One row per image of these splits: all columns but the pixels."""
        return read_rows(self.shards, self.card.delta_version, splits)


def keep_card(card: Card, workspace: Workspace) -> None:
    """Writes card.json, which names the version that other commands read; card.table: the tables' folder or address."""
    replace(card, table=stored_place(card.table, workspace.root)).write(workspace.card)
