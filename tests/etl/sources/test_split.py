import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import InputError
from conf.settings import Etl
from etl.card.counts import describe_splits
from etl.contract.schema import NIH_FINDINGS
from etl.sources.published.nih import _read_labels
from etl.sources.split import assign_hashed, assign_listed, assign_official, assign_split, find_leaks
from etl.sources.tables.file import read_table

PATIENTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), unique=True, min_size=1, max_size=80)


def manifest_of(images: list[tuple[int, int]]) -> pd.DataFrame:
    return pd.DataFrame([(f"{p}_{f}.png", str(p)) for p, f in images], columns=["image_id", "patient_id"])


def split_of(images, fraction=0.4, seed=0) -> pd.Series:
    test = {f"{p}_{f}.png" for p, f in images if p % 5 == 0}
    train_val = {f"{p}_{f}.png" for p, f in images if p % 5}
    rows = manifest_of(images)
    return assign_split(rows, Etl(val_fraction=fraction, seed=seed), assign_official(rows, train_val, test)).split


@given(PATIENTS, st.floats(0.01, 0.99), st.integers(0, 5))
def test_no_patient_is_in_two_splits(images, fraction, seed):
    split = split_of(images, fraction, seed)
    assert split.notna().all()
    assert find_leaks(manifest_of(images).assign(split=split)[["patient_id", "split"]]) == []


@given(PATIENTS, PATIENTS)
def test_a_patient_keeps_the_split_when_others_are_added(images, more):
    together = list(dict.fromkeys([*images, *more]))
    assert list(split_of(together)[: len(images)]) == list(split_of(images))


def test_the_set_fraction_of_the_patients_is_in_validation():
    split = split_of([(patient, 0) for patient in range(10_000)], fraction=0.125)
    assert 0.115 < (split == "val").sum() / (split != "test").sum() < 0.135


def test_a_leak_is_found():
    rows = pd.DataFrame({"patient_id": ["1", "1", "2", "2"], "split": ["train", "train", "val", "test"]})
    assert find_leaks(rows) == ["2"]


@given(st.lists(st.integers(0, 10_000), unique=True, min_size=1), st.integers(0, 3))
def test_hashed_patients_keep_the_split_when_others_are_added(numbers, seed):
    patients = pd.Series([str(number) for number in numbers])
    few, all_of_them = (assign_hashed(part, 0.1, 0.2, seed) for part in (patients[: len(patients) // 2], patients))
    assert few.tolist() == all_of_them[: len(few)].tolist()


def test_hashed_shares_are_those_of_the_settings():
    split = assign_hashed(pd.Series([str(number) for number in range(20_000)]), 0.125, 0.2, 0)
    shares = split.value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.01)


LISTED = pd.DataFrame(
    {
        "image_id": ["a.png", "b.png", "c.png", "d.png"],
        "patient_id": ["1", "1", "2", "3"],
        "findings": [np.zeros(2, np.float32)] * 4,
    }
)


def write_lists(folder, train: str, val: str, test: str) -> None:
    for name, text in (("train", train), ("val", val), ("test", test)):
        (folder / f"{name}_list.txt").write_text(text)


def test_lists_give_split_and_labels(tmp_path):
    write_lists(tmp_path, "a.png 1 0\r\nb.png 0 0\n", "c.png 1 1", "other.png 0 0\n\n")
    rows = assign_listed(LISTED, tmp_path)
    assert rows.split.tolist() == ["train", "train", "val", None]
    assert np.stack(rows.findings).tolist() == [[1, 0], [0, 0], [1, 1], [0, 0]]


def test_names_on_lists_may_have_blanks_and_those_that_are_no_images_are_said(tmp_path):
    rows = LISTED.assign(image_id=["a b.png", "b.png", "c.png", "d.png"])
    write_lists(tmp_path, "a b.png\nb.png\nx.png", "c.png", "d.png")
    listed = assign_listed(rows, tmp_path)
    assert listed.split.tolist() == ["train", "train", "val", "test"]
    assert listed.attrs["notes"] == [f"1 name in {tmp_path} is no image of the source, such as 'x.png'"]
    write_lists(tmp_path, "images/a.png", "images/c.png", "images/d.png")
    with pytest.raises(InputError, match="none of the 3 names in .*, such as 'images/a.png', .* such as 'a b.png'"):
        assign_listed(rows, tmp_path)


def test_lists_of_dicom_files_say_where_the_names_of_images_are(tmp_path):
    write_lists(tmp_path, "1.dcm", "2.dcm", "3.dcm")
    settings = Etl(format="dicom", split="lists", split_lists=str(tmp_path))
    with pytest.raises(InputError, match=r"write them alike \(dicom_paths.csv in the workspace of an earlier run has"):
        assign_split(LISTED, settings, None)
    write_lists(tmp_path, "a.png\n1.dcm", "c.png", "d.png")
    (note,) = assign_split(LISTED, settings, None).attrs["notes"]
    assert note.endswith(
        "such as '1.dcm' (dicom_paths.csv in the workspace of an earlier run has the names of DICOM files)"
    )


def test_lists_without_labels_keep_those_of_the_label_file(tmp_path):
    write_lists(tmp_path, "a.png\nb.png", "c.png", "d.png")
    rows = assign_listed(LISTED, tmp_path)
    assert rows.split.tolist() == ["train", "train", "val", "test"]
    assert rows.findings is LISTED.findings or rows.findings.equals(LISTED.findings)


@pytest.mark.parametrize(
    ("lists", "fault"),
    [
        (
            ("a.png", "b.png", "d.png"),
            r"1 patient is on two of the lists in .*, such as 1 with a.png \(train\) and b.png \(val\)",
        ),
        (("a.png\nb.png", "a.png", "d.png"), "a.png is on the train list and on the val list"),
        (("a.png 1", "c.png", "d.png"), "train_list.txt line 1: 1 label 1..., expected none, or 2"),
        (
            ("a.png 1 0\na.png 0 0", "c.png", "d.png"),
            "train_list.txt line 2: a.png has other labels in an earlier line",
        ),
        (("a.png 1 0", "c.png\nd.png 1 -1", ""), "val_list.txt line 2: 2 labels"),
    ],
)
def test_faults_of_lists_are_named(tmp_path, lists, fault):
    write_lists(tmp_path, *lists)
    with pytest.raises(InputError, match=fault):
        assign_listed(LISTED, tmp_path)


def test_a_missing_list_is_named(tmp_path):
    write_lists(tmp_path, "a.png", "c.png", "d.png")
    (tmp_path / "val_list.txt").unlink()
    with pytest.raises(InputError, match=r"no split list at .*val_list.txt"):
        assign_listed(LISTED, tmp_path)


# Table 1 of the project that first published these lists: percent of the images per split (train, val, test).
CHEXNET_PERCENTAGES = {
    "Atelectasis": (10.2, 10.0, 10.8),
    "Cardiomegaly": (2.5, 2.1, 2.6),
    "Effusion": (11.8, 11.5, 12.3),
    "Infiltration": (17.7, 18.0, 17.6),
    "Mass": (5.1, 5.6, 5.1),
    "Nodule": (5.6, 5.5, 6.0),
    "Pneumonia": (1.2, 1.2, 1.1),
    "Pneumothorax": (4.7, 4.5, 4.9),
    "Consolidation": (4.2, 4.0, 4.3),
    "Edema": (2.2, 1.8, 1.8),
    "Emphysema": (2.3, 1.9, 2.3),
    "Fibrosis": (1.5, 1.5, 1.6),
    "Pleural_Thickening": (2.9, 3.3, 3.3),
    "Hernia": (0.2, 0.4, 0.2),
}


def test_the_lists_of_chexnet_reproduce_the_published_percentages(nih_sample):
    path = nih_sample / "Data_Entry_2017_v2020.csv"
    labels = _read_labels(read_table(path, []), path, NIH_FINDINGS)
    rows = assign_listed(labels, nih_sample / "chexnet_split")
    described = describe_splits(rows, list(NIH_FINDINGS))
    assert described["images"] == {"train": 78_468, "val": 11_219, "test": 22_433}
    for finding, published in CHEXNET_PERCENTAGES.items():
        assert [f"{described['percentages'][split][finding]:.1f}" for split in ("train", "val", "test")] == [
            f"{percent:.1f}" for percent in published
        ], finding


def test_each_patient_is_in_the_test_split_of_one_fold():
    patients = pd.Series([str(number) for number in range(2000)])
    folds = [assign_hashed(patients, 0.125, 0.2, seed=3, test_fold=fold) for fold in range(5)]
    assert folds[0].equals(assign_hashed(patients, 0.125, 0.2, seed=3))
    assert (sum((fold == "test").astype(int) for fold in folds) == 1).all()
    for fold in folds:
        assert fold.value_counts(normalize=True)["test"] == pytest.approx(0.2, abs=0.03)
        assert fold.value_counts(normalize=True)["val"] == pytest.approx(0.1, abs=0.03)
