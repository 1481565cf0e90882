"""Published AUROCs beside a run's."""

from dataclasses import replace

import numpy as np
import pytest

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.schema import NIH_FINDINGS
from jobs.studies.literature import Published, better_in, draw_literature, read_published, split_of
from jobs.studies.runs import Run
from tests.conftest import make_card
from training.ensembles.members import Member

# The mean AUROC of CheXNet, as its authors print it.
CHEXNET_MEAN = 0.841


@pytest.fixture
def run(tmp_path) -> Run:
    """A run on all of NIH's official test split, with an AUROC of 0.8 for every finding."""
    workspace = Workspace.at(str(tmp_path))
    card = make_card(list(NIH_FINDINGS), [3] * 14, [8] * 14)
    replace(card, source="/data/nih", settings={"format": "nih"}, source_sha256={"test_list.txt": "0"}).write(
        workspace.card
    )
    auroc = {finding: {"value": 0.8, "low": 0.78, "high": 0.82} for finding in (*NIH_FINDINGS, "mean")}
    trained_on = {"delta_table_id": card.delta_table_id, "delta_version": card.delta_version}
    member = Member(
        workspace, list(NIH_FINDINGS), False, trained_on, auroc, 0.8, {}, np.zeros(14), np.ones(14), np.array([])
    )
    return Run("ours", "run", member, {"test_images": 25596}, None)


def test_every_published_figure_names_its_source_and_split():
    published = read_published()
    assert [one.value for one in published] == sorted((one.value for one in published), reverse=True)
    assert all(one.source and 0.5 < one.value < 1 for one in published)
    (chexnet,) = (one for one in published if one.name == "CheXNet")
    assert chexnet.value == pytest.approx(CHEXNET_MEAN, abs=5e-4) and chexnet.split == "own"


def test_a_run_on_the_whole_official_list_is_comparable_and_a_part_of_it_is_not(run):
    assert split_of(run) == "official"
    assert split_of(replace(run, facts={"test_images": 25000})) == "own"


@pytest.mark.parametrize("change", [{"source": "/runs/demo/phantoms"}, {"settings": {"format": "csv"}}])
def test_other_films_are_refused(run, change):
    card = replace(make_card(list(NIH_FINDINGS), [3] * 14, [8] * 14), source="/data/nih", settings={"format": "nih"})
    replace(card, **change).write(run.member.workspace.card)
    with pytest.raises(InputError, match="not ChestX-ray14's"):
        split_of(run)


def test_it_counts_the_findings_in_which_the_run_is_better(run):
    values = dict(zip(NIH_FINDINGS, [0.7] * 5 + [0.9] * 9, strict=True))
    assert better_in(run, Published("x", "own", "a paper", auroc=values)) == (5, 14)
    assert better_in(run, Published("x", "official", "a paper", mean=0.8)) is None


def test_the_figure_is_drawn(run, tmp_path):
    draw_literature(tmp_path / "literature.png", run, read_published())
    assert (tmp_path / "literature.png").read_bytes().startswith(b"\x89PNG")
