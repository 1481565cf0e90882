"""What labels lack for a training, and the next step that leads out."""

from dataclasses import asdict, replace

import pytest

from conf.settings import Columns, Etl
from etl.contract.labels import missing_labels, not_learned
from etl.contract.schema import SPLITS, Card
from tests.conftest import make_card

FINDINGS = ["A", "B"]


def card(
    known: dict[str, tuple[int, int]], positives: dict[str, tuple[int, int]], settings: Etl | None = None, **changes
) -> Card:
    """A card with these numbers per split for A and B; 8 images per split."""
    counts = [{split: dict(zip(FINDINGS, part[split], strict=True)) for split in SPLITS} for part in (known, positives)]
    made = make_card(FINDINGS, [1, 1], [2, 2])
    return replace(made, known=counts[0], positives=counts[1], settings=asdict(settings or Etl()), **changes)


def everywhere(*numbers: int) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(SPLITS, numbers)


def test_findings_of_which_nothing_is_learned():
    assert not_learned(card(everywhere(8, 0), everywhere(3, 0))) == {"no training image has a known label": ["B"]}
    alike = {"all their known training labels are the same": ["A", "B"]}
    assert not_learned(card(everywhere(8, 8), everywhere(8, 0))) == alike
    assert not_learned(card(everywhere(8, 8), everywhere(3, 4))) == {}


def test_labels_that_are_enough():
    assert missing_labels(card(everywhere(8, 0), everywhere(3, 0))) == ""


@pytest.mark.parametrize("label_file", ["labels.csv", "tables/all.csv"])
def test_dicom_files_without_a_table_need_one(label_file):
    settings = Etl(format="dicom", columns=Columns(label_file=label_file))
    said = missing_labels(card(everywhere(0, 0), everywhere(0, 0), settings, source_sha256={}))
    assert said.startswith("no image of the table has a known label")
    assert f"no table {label_file!r}" in said
    assert "--etl.columns.label_file" in said
    assert "val_fraction" not in said


@pytest.mark.parametrize("form", ["dicom", "csv", "nih"])
def test_a_table_whose_cells_are_all_unknown(form):
    settings = Etl(format=form, columns=Columns(findings=FINDINGS))
    said = missing_labels(card(everywhere(0, 0), everywhere(0, 0), settings, source_sha256={"labels.csv": "0"}))
    assert said.startswith("no image of the table has a known label")
    assert "1 (present) or 0 (absent)" in said
    assert "etl.uncertain" in said
    assert "val_fraction" not in said


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_labels_is_named(split):
    known = everywhere(8, 8) | {split: (0, 0)}
    said = missing_labels(card(known, everywhere(3, 3) | {split: (0, 0)}))
    assert f"no image of the {split} split has a known label, but others have" in said
    assert "label images of its patients" in said


def test_a_test_split_without_labels_can_be_trained_for():
    assert missing_labels(card(everywhere(8, 8) | {"test": (0, 0)}, everywhere(3, 3) | {"test": (0, 0)})) == ""


def test_labels_of_only_present_findings_lack_zeros():
    said = missing_labels(card(everywhere(3, 2), everywhere(3, 2)))
    assert "every known label is 1 (present)" in said
    assert "write 0 where a finding is absent: an empty cell means unknown" in said
    assert "val_fraction" not in said


def test_labels_of_only_absent_findings_lack_ones():
    said = missing_labels(card(everywhere(8, 8), everywhere(0, 0)))
    assert "every known label is 0 (absent)" in said
    assert "--etl.columns.findings" in said
    assert "val_fraction" not in said


def test_labels_that_are_alike_for_each_finding():
    said = missing_labels(card(everywhere(8, 8), everywhere(8, 0)))
    assert "no finding has both positives and negatives in the whole table" in said
    assert "val_fraction" not in said


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (Etl(split="hashed"), "raise etl.val_fraction or change etl.seed"),
        (Etl(split="lists", split_lists="lists"), "put patients with and without a finding on val_list.txt"),
        (Etl(split="source"), "choose --etl.split hashed if the source has a val split of its own"),
    ],
)
def test_a_val_split_that_is_too_small_gets_advice_for_how_it_is_chosen(settings, advice):
    said = missing_labels(card(everywhere(8, 8), {"train": (3, 2), "val": (0, 8), "test": (1, 1)}, settings))
    assert said.startswith("no finding has both positives and negatives among the 8 images of the val split")
    assert advice in said
