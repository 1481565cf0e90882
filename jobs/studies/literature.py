"""Published AUROCs beside those of runs on NIH ChestX-ray14, with the split that each was measured on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import yaml

from conf.errors import InputError
from etl.contract.schema import NIH_FINDINGS, Card
from jobs.studies.comparison import MEAN
from jobs.studies.runs import Run
from training.ensembles.members import table_of
from training.record.figures import COLOURS, PLAIN_TEXT, save_figure

FILE = Path(__file__).with_name("literature.yaml")
TEST_LIST = "test_list.txt"
OFFICIAL_TEST_IMAGES = 25596
"""lines of NIH's test_list.txt"""
OURS, COMPARABLE, OTHER = COLOURS[1], COLOURS[0], "0.75"


@dataclass(frozen=True)
class Published:
    """AUROCs that somebody has published."""

    name: str
    split: Literal["official", "own"]
    """`official`: NIH's test list; `own`: another split, which must not be compared with it"""
    source: str
    """where the figures were read"""
    year: int | None = None
    network: str = ""
    size_px: int | None = None
    mean: float | None = None
    """over the 14 findings; None if the source gives the findings alone"""
    auroc: dict[str, float] = field(default_factory=dict)
    """finding, as NIH's label file spells it -> AUROC; empty if the source gives only the mean"""

    def __post_init__(self):
        assert self.split in ("official", "own"), self.split
        assert not self.auroc or set(self.auroc) == set(NIH_FINDINGS), self.name
        assert self.auroc or self.mean, self.name

    @property
    def value(self) -> float:
        """The mean over the findings."""
        return self.mean if self.mean is not None else float(np.mean(list(self.auroc.values())))


def read_published(file: Path = FILE) -> list[Published]:
    """The published figures, the best mean first."""
    rows = [Published(**row) for row in yaml.safe_load(file.read_text(encoding="utf-8"))]
    return sorted(rows, key=lambda row: -row.value)


def split_of(run: Run) -> str:
    """Which split the run was tested on, `official` or `own`, as Published has it.

    Raises InputError if its films are not those of ChestX-ray14, so that nothing published compares with them.
    """
    card = Card.read(run.member.workspace.card)
    if (card.delta_table_id, card.delta_version) != tuple(run.member.trained_on.values()):
        card = table_of(run.member).card
    is_nih = card.settings.get("format") == "nih" and run.member.findings == list(NIH_FINDINGS)
    if not is_nih or card.source.rstrip("/").endswith("phantoms"):
        raise InputError(
            f"the films of {run.name} are not ChestX-ray14's with its 14 findings ({card.title}), and published "
            "figures are of those: leave out --literature"
        )
    is_whole = run.facts["test_images"] == OFFICIAL_TEST_IMAGES and TEST_LIST in card.source_sha256
    return "official" if is_whole else "own"


def better_in(run: Run, published: Published) -> tuple[int, int] | None:
    """In how many of how many findings the run's AUROC is higher; None if nothing was published per finding."""
    ours = {finding: ends["value"] for finding, ends in run.auroc.items() if finding != MEAN}
    both = [finding for finding, value in ours.items() if value is not None and finding in published.auroc]
    return (sum(ours[name] > published.auroc[name] for name in both), len(both)) if both else None


@PLAIN_TEXT
def draw_literature(path: Path, run: Run, published: list[Published]) -> None:
    """The run's mean AUROC with its interval beside the published ones, and every finding's where those are known.

    Figures that do not compare are grey: only those of NIH's test list compare, with a run on the whole of it.
    """
    split, count = split_of(run), f"{run.facts['test_images']:,} images"
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6.5), width_ratios=(1.1, 1), layout="constrained")
    name = "NIH's official test split" if split == "official" else "a split of its own"
    figure.suptitle(
        f"{run.name} on {name} ({count}) beside published AUROCs; grey: measured on another split", fontsize=11
    )
    rows = [(run.name, run.auroc[MEAN]["value"], OURS, "")]
    for one in published:
        better = better_in(run, one)
        said = f"{one.name}{f' {one.year}' if one.year else ''}"
        note = f"({run.name} is better in {better[0]} of {better[1]} findings)" if better else ""
        rows.append((said, one.value, COMPARABLE if one.split == split == "official" else OTHER, note))
    left.barh(range(len(rows)), [row[1] - 0.5 for row in rows], left=0.5, color=[row[2] for row in rows])
    ends = run.auroc[MEAN]
    if ends["low"] is not None:
        left.hlines(0, ends["low"], ends["high"], color="black")
    for place, (_, value, _, note) in enumerate(rows):
        edge = max(value, ends["high"] or value) if place == 0 else value
        left.text(edge + 0.005, place, f"{value:.3f}  {note}", va="center", fontsize=8)
    left.set_yticks(range(len(rows)), [row[0] for row in rows])
    left.set(xlim=(0.5, 1.02), ylim=(len(rows) - 0.4, -0.6), xlabel="mean AUROC over 14 findings (0.5 is chance)")
    places = np.arange(len(NIH_FINDINGS))
    for one in (row for row in published if row.auroc):
        colour = COMPARABLE if one.split == split == "official" else OTHER
        right.plot([one.auroc[finding] for finding in NIH_FINDINGS], places, "o", color=colour, markersize=4)
    ours = np.array([[run.auroc[finding][key] for key in ("value", "low", "high")] for finding in NIH_FINDINGS], float)
    right.hlines(places, ours[:, 1], ours[:, 2], color=OURS)
    right.plot(ours[:, 0], places, "D", color=OURS, label=run.name)
    right.set_yticks(places, NIH_FINDINGS)
    right.set_ylim(len(places) - 0.4, -0.6)
    right.set_xlabel("AUROC per finding, where it was published")
    right.legend(frameon=False, loc="lower left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
