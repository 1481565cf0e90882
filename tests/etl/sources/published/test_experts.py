"""The manifest of the experts' labels of NIH's films."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conf.errors import InputError
from etl.contract.agreement import agreement
from tests.etl.sources.published.published import label_files, labels_of, read, rows_of, touch, write_table

HEADER = ["Image Index", "Patient ID", "Patient Age", "Patient Gender", "View Position", "Follow-up #"]
HEADER += ["Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass"]


def row(image: str, fracture: str = "NO", nodule: str = "YES") -> list[str]:
    return [image, str(int(image[:8])), "60", "M", "AP", image[9:12], fracture, "NO", "YES", nodule]


VAL = [row("00000001_000.png"), row("00000001_001.png", nodule="HEDGE")]
TEST = [row("00000002_000.png", fracture="YES")]


def make(folder: Path, val=VAL, test=TEST, header=HEADER) -> Path:
    tables = folder / "four_findings_expert_labels"
    write_table(tables / "validation_labels.csv", header, val)
    write_table(tables / "test_labels.csv", HEADER, test)
    write_table(tables / "individual_readers.csv", ["Image ID", "Reader ID"], [])
    touch(
        folder, *(f"images_001/images/{name}" for name in ("00000001_000.png", "00000001_001.png", "00000002_000.png"))
    )
    return folder


def test_both_parts_are_read(tmp_path):
    manifest = read(make(tmp_path), "experts", val_fraction=0.001)
    assert labels_of(manifest, "00000002_000.png") == dict(zip(manifest.findings, [1, 0, 1, 1], strict=True))
    assert np.isnan(labels_of(manifest, "00000001_001.png")["Nodule or mass"])
    film = rows_of(manifest).loc["00000001_001.png"]
    assert (film.patient_id, film.follow_up, film.age_years, film.sex, film["view"]) == ("1", 1, 60, "M", "AP")
    assert rows_of(manifest).split.tolist() == ["train", "train", "test"]
    assert manifest.left_out == {".csv, not listed in the tables": 1}
    assert labels_of(read(tmp_path, "experts", uncertain="zero"), "00000001_001.png")["Nodule or mass"] == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"val": [row("00000001_000.png", fracture="MAYBE")]},
            "line 2: Fracture is 'MAYBE', expected YES, NO or HEDGE",
        ),
        (
            {"val": [*VAL, row("00000001_000.png", fracture="YES")]},
            "names 1 image twice, such as 00000001_000.png in lin",
        ),
        ({"test": [row("00000001_000.png")]}, "00000001_000.png is in both"),
        ({"test": [row("00000001_007.png")]}, "1 patient is in more than one split"),
        ({"header": HEADER[:-1] + ["Mass"]}, r"lacks the columns \['Nodule or mass'\]"),
        ({"val": [row("00000008_000.png")], "test": [row("00000009_000.png")]}, "none of the 2 films of the experts"),
    ],
)
def test_a_faulty_table_ends_with_a_message(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        read(make(tmp_path, **changes), "experts")


def test_the_real_labels_in_one_table_are_read(tmp_path):
    shutil.copy(label_files() / "google2019_nih-chest-xray-labels.csv.gz", tmp_path)
    touch(tmp_path, "images/00000013_008.png", "images/00000013_026.png")
    manifest = read(tmp_path, "experts")
    assert (manifest.listed, len(manifest.images)) == (4376, 2)
    assert list(labels_of(manifest, "00000013_026.png").values()) == [0, 1, 0, 0]
    assert rows_of(manifest).split.tolist() == ["test", "test"]


def test_mined_labels_agree_with_the_experts_as_far_as_they_are_known_to(tmp_path):
    folder = label_files()
    shutil.copy(folder / "google2019_nih-chest-xray-labels.csv.gz", tmp_path)
    mined = pd.read_csv(folder / "Data_Entry_2017_v2020.csv.gz").set_index("Image Index")["Finding Labels"]
    listed = pd.read_csv(tmp_path / "google2019_nih-chest-xray-labels.csv.gz")["Image Index"]
    touch(tmp_path, *(f"images/{name}" for name in listed))
    manifest = read(tmp_path, "experts")
    judged = pd.DataFrame(np.stack(manifest.images.findings), manifest.images.image_id, manifest.findings)
    words = mined[judged.index].str.split("|").map(set)
    found = np.stack([words.map(names.__and__).map(bool) for names in ({"Pneumothorax"}, {"Nodule", "Mass"})], axis=1)
    air, nodule = agreement(found.astype(float), judged[["Pneumothorax", "Nodule or mass"]].to_numpy(float))
    assert (air.films, air.first, air.second, round(air.ppv, 2), round(air.sensitivity, 2)) == (
        4376,
        238,
        238,
        0.46,
        0.46,
    )
    assert (nodule.first, nodule.second, round(nodule.ppv, 2), round(nodule.sensitivity, 2)) == (455, 605, 0.56, 0.42)
