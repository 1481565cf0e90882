"""An empty split, and the next step that fits why it is empty."""

import pandas as pd
import pytest

from conf.errors import InputError
from etl.card.counts import check_splits
from etl.contract.schema import SPLITS

VIEW = "view LATERAL, not in etl.views"


def images(*rows: tuple[str, str | None, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["patient_id", "split", "reason"], dtype=object)


def test_three_splits_are_enough():
    check_splits(images(*(("a" + split, split, None) for split in SPLITS)))
    check_splits(images(*(("a" + split, split, None) for split in SPLITS)).drop(columns="reason"))


def test_images_that_are_left_out_are_counted_by_their_reason():
    rows = [(split, split, None) for split in ("train", "test")]
    rows += [("v", "val", VIEW), ("v", "val", VIEW), ("w", "val", "listed in bad.txt"), ("x", None, "in no split")]
    said = (
        r"val split has no images: its 3 images are left out \(2 view LATERAL, not in etl.views; 1 listed in bad.txt\)"
    )
    with pytest.raises(InputError, match=rf"{said}: change what leaves them out") as raised:
        check_splits(images(*rows))
    assert "val_fraction" not in str(raised.value)


def test_a_source_of_which_nothing_is_used_says_why():
    with pytest.raises(InputError, match=r"its 9 images are left out \(9 in no split\)"):
        check_splits(images(*((str(number), None, "in no split") for number in range(9))))


@pytest.mark.parametrize("num_patients", [1, 2])
def test_fewer_patients_than_splits_are_named(num_patients):
    rows = [(str(number % num_patients), "train", None) for number in range(20)]
    with pytest.raises(
        InputError, match=rf"{num_patients} patient.*each split needs one.*etl.columns.patient"
    ) as raised:
        check_splits(images(*rows))
    assert "val_fraction" not in str(raised.value)


def test_other_empty_splits_come_from_lists_fractions_or_the_seed():
    with pytest.raises(InputError, match=r"val split has no images.*etl.val_fraction.*etl.seed.*'train': 9"):
        check_splits(images(*((str(number), "train", None) for number in range(9))))
