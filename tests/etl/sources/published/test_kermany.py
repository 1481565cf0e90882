"""The manifest of Kermany's class folders, whose file names tell the patients."""

from pathlib import Path

import pytest

from conf.errors import InputError
from tests.etl.sources.published.published import labels_of, read, rows_of, touch

FILMS = ("NORMAL/IM-0115-0001.jpeg", "NORMAL/IM-0115-0001-0002.jpeg", "NORMAL/NORMAL2-IM-0115-0001.jpeg")
FILMS += ("PNEUMONIA/person1_bacteria_2.jpeg", "PNEUMONIA/person1_virus_6.jpeg", "PNEUMONIA/person2_virus_7.jpeg")


def make(folder: Path, *more: str) -> Path:
    touch(folder, *(f"train/{name}" for name in FILMS), *more)
    return folder


def test_the_name_of_a_file_tells_patient_and_cause(tmp_path):
    manifest = read(make(tmp_path), "kermany", split="hashed")
    assert manifest.findings == ["PNEUMONIA", "bacteria", "virus"]
    assert list(labels_of(manifest, "train/NORMAL/IM-0115-0001.jpeg").values()) == [0, 0, 0]
    assert list(labels_of(manifest, "train/PNEUMONIA/person1_bacteria_2.jpeg").values()) == [1, 1, 0]
    assert list(labels_of(manifest, "train/PNEUMONIA/person1_virus_6.jpeg").values()) == [1, 0, 1]
    rows = rows_of(manifest)
    expected = ["im-0115", "im-0115", "normal2-im-0115", "person1", "person1", "person2"]
    assert rows.patient_id[[f"train/{name}" for name in FILMS]].tolist() == expected
    assert rows.groupby("patient_id").split.nunique().max() == 1
    assert set(rows["view"]) == {"AP"} and manifest.channels == 1


def test_the_newer_names_are_understood(tmp_path):
    names = ["train/NORMAL/NORMAL-28501-0001.jpeg", "test/PNEUMONIA/BACTERIA-7422-0001.jpeg"]
    touch(tmp_path, *names, "val/PNEUMONIA/VIRUS-9881-0001.jpeg")
    manifest = read(tmp_path, "kermany")
    assert rows_of(manifest).split.tolist() == ["test", "train", "val"]
    assert rows_of(manifest).patient_id.tolist() == ["7422", "28501", "9881"]


def test_a_number_in_two_splits_needs_a_split_by_patient(tmp_path):
    make(tmp_path, "test/PNEUMONIA/person1_virus_9.jpeg")
    with pytest.raises(
        InputError, match=r"1 patient is in folders of two splits .* 'test/PNEUM.* choose --etl.split hashed"
    ):
        read(tmp_path, "kermany")
    assert rows_of(read(tmp_path, "kermany", split="hashed")).groupby("patient_id").split.nunique().max() == 1


def test_files_that_are_no_films_are_left_out_and_counted(tmp_path):
    make(tmp_path, "train/NORMAL/copy.jpeg", "train/OTHER/IM-0115-0001.jpeg", "README.md")
    manifest = read(tmp_path, "kermany", split="hashed")
    reason = "no film by its name and folder"
    assert manifest.left_out == {f".jpeg, {reason}": 2, f".md, {reason}": 1}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train/NORMAL/person3_virus_1.jpeg", "is in the folder NORMAL, but its name tells that of pneumonia: move it"),
        ("train/PNEUMONIA/IM-0001-0001.jpeg", "is in the folder PNEUMONIA, but its name tells that of a healthy child"),
    ],
)
def test_a_name_that_contradicts_its_class_is_refused(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        read(make(tmp_path, name), "kermany")


def test_a_folder_without_such_films_is_refused(tmp_path):
    touch(tmp_path, "NORMAL/a.png")
    with pytest.raises(InputError, match=r"no film among the 1 file below .* expected folders NORMAL and PNEUMONIA"):
        read(tmp_path, "kermany")
