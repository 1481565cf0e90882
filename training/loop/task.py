"""What one training is about: settings, workspace, table, splits, and the network that it starts from."""

from dataclasses import dataclass, field

from conf.settings import Settings
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from training.network.checkpoint import State
from training.network.models import XrayClassifier
from training.reading.plan import Plan, Split


@dataclass(frozen=True)
class Task:
    """A training's inputs, checked by start/prepare.py and the same on every rank."""

    settings: Settings
    workspace: Workspace
    table: TableVersion
    plan: Plan
    """the steps over the training split"""
    val: Split
    test: Split
    model: XrayClassifier
    """before its first step"""
    grid: tuple[float, float] | None = None
    """where the cells of its maps lie, see measure_map_grid; only with training.box_weight or lung_weight"""
    ancestors: list[dict] = field(default_factory=list)
    """models whose weights it starts from, see Checkpoint.ancestors; only rank 0 knows them"""
    interrupted: State | None = None
    """the state from which it resumes"""

    @property
    def card(self) -> Card:
        """The card of the table version that is trained on."""
        return self.table.card
