"""The manifests of two challenges, RSNA's and SIIM's: boxes and masks of DICOM films."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from etl.sources.published.siim import _box_of
from tests.etl.dicom_files import build, written
from tests.etl.sources.published.published import label_files, labels_of, read, rows_of, touch, write_table

BOXES = ["patientId", "x", "y", "width", "height", "Target"]
ROWS = [
    ["aa", "256", "128", "512", "256", "1"],
    ["aa", "0", "0", "64", "64", "1"],
    ["bb", "", "", "", "", "0"],
    ["cc", "", "", "", "", "0"],
]
CLASSES = [["aa", "Lung Opacity"], ["aa", "Lung Opacity"], ["bb", "Normal"], ["cc", "No Lung Opacity / Not Normal"]]


def put(folder: Path, *names: str, **tags) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        usual = {"SOPInstanceUID": f"1.2.{number}", "PatientID": name, "PatientAge": "51", "PatientSex": "F"}
        # An age without a unit is no value of the tag, but RSNA's films have it.
        with warnings.catch_warnings(action="ignore"):
            film = build(np.zeros((1024, 1024), np.uint8), ViewPosition="AP", **usual | tags)
        (folder / f"{name}.dcm").write_bytes(written(film))


def rsna(folder: Path, rows=ROWS, classes=CLASSES) -> Path:
    write_table(folder / "stage_2_train_labels.csv", BOXES, rows)
    write_table(folder / "stage_2_detailed_class_info.csv", ["patientId", "class"], classes)
    put(folder / "stage_2_train_images", "aa", "bb")
    touch(folder, "stage_2_train_images/cc.png")
    return folder


def test_the_rows_of_a_film_become_its_boxes(tmp_path):
    manifest = read(rsna(tmp_path), "rsna")
    assert manifest.findings == ["Lung Opacity", "No Lung Opacity / Not Normal"]
    assert [list(labels_of(manifest, image).values()) for image in ("aa", "bb", "cc")] == [[1, 0], [0, 0], [0, 1]]
    rows = rows_of(manifest)
    assert rows.boxes["aa"] == pytest.approx([0, 0.25, 0.125, 0.5, 0.25, 0, 0, 0, 0.0625, 0.0625])
    film = rows.loc["bb"]
    assert (film.age_years, film.sex, film["view"], film.patient_id, film.boxes) == (51, "F", "AP", "bb", [])
    assert any("nothing names patients" in note for note in manifest.notes)
    (tmp_path / "stage_2_detailed_class_info.csv").unlink()
    assert read(tmp_path, "rsna").findings == ["Lung Opacity"]


@pytest.mark.parametrize("tags", [{"PatientOrientation": ["R", "H"]}, {"Rows": 512, "Columns": 2048}])
def test_boxes_of_a_film_that_is_shown_turned_or_is_not_square_are_left_out(tmp_path, tags):
    put(rsna(tmp_path) / "stage_2_train_images", "aa", **tags)
    manifest = read(tmp_path, "rsna")
    assert rows_of(manifest).boxes["aa"] == []
    assert "boxes of films that are shown turned, or are not square, are left out: 2" in manifest.notes


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [["aa", "1000", "0", "64", "64", "1"]],
            r"line 2: the box from \(1000, 0\) to \(1064, 64\) exceeds its film of 10",
        ),
        (
            [["aa", "10", "0", "-4", "64", "1"]],
            r"line 2: the box is 10.0, 0.0, 6.0, 64.0, expected x, y, width, height",
        ),
        ([["aa", "10", "a", "4", "64", "1"]], r"line 2: the box is 10, a, 4, 64, expected"),
        ([["aa", "", "", "", "", "1"]], r"line 2: aa has Target 1 and no box"),
        ([["aa", "1", "1", "4", "4", "0"]], r"line 2: aa has Target 0 and a box"),
        ([["aa", "", "", "", "", "2"]], r"line 2: Target is '2', expected 0 or 1"),
        ([ROWS[0], ["aa", "", "", "", "", "0"]], r"line 3: Target of aa is 0, and 1 above"),
        ([["bb", "1", "1", "4", "4", "1"]], r"class_info.csv line 4: the class of bb is 'Normal', expected one of"),
        ([*ROWS, ["dd", "", "", "", "", "0"]], r"class_info.csv has no class of 1 films, such as dd"),
        ([["aa", "1", "1"]], r"line 2: 3 cells, expected 6"),
    ],
)
def test_a_faulty_table_of_boxes_ends_with_a_message(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        read(rsna(tmp_path, rows), "rsna")


@pytest.mark.parametrize("classes", [[*CLASSES, ["bb", "Lung Opacity"]], [["aa", "Mass"]], [["aa", "Normal"]]])
def test_classes_that_contradict_are_refused(tmp_path, classes):
    with pytest.raises(
        InputError, match=r"class_info.csv line \d: the class of .. is .*, expected one of Lung Opacity"
    ):
        read(rsna(tmp_path, classes=classes), "rsna")


def encode(mask: np.ndarray) -> str:
    """Runs down the columns of a film of 1024x1024 pixels, as SIIM writes them."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel().astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    skips = starts - np.concatenate([[0], ends[:-1]])
    return " ".join(f"{skip} {end - start}" for skip, start, end in zip(skips, starts, ends, strict=True))


@pytest.mark.parametrize(("left", "top", "right", "bottom"), [(5, 7, 9, 30), (0, 0, 1024, 1024), (3, 1000, 5, 1024)])
def test_the_box_of_a_mask_is_around_its_pixels(left, top, right, bottom):
    mask = np.zeros((1024, 1024), bool)
    mask[top:bottom, left:right] = True
    assert _box_of(encode(mask), Path("t.csv"), 0) == [left, top, right, bottom]


def siim(folder: Path, rows: list[list[str]]) -> Path:
    write_table(folder / "train-rle.csv", ["ImageId", " EncodedPixels"], rows)
    put(folder / "dicom-images-train" / "1.7", "1.2.0", "1.2.1", PatientID="P1")
    return folder


def test_masks_say_which_films_have_the_finding(tmp_path):
    mask = np.zeros((1024, 1024), bool)
    mask[256:512, 128:192] = True
    manifest = read(siim(tmp_path, [["1.2.0", " -1"], ["1.2.1", encode(mask)], ["1.2.9", " -1"]]), "siim")
    assert (labels_of(manifest, "1.2.0"), labels_of(manifest, "1.2.1")) == ({"Pneumothorax": 0}, {"Pneumothorax": 1})
    assert rows_of(manifest).boxes["1.2.1"] == pytest.approx([0, 0.125, 0.25, 0.0625, 0.25])
    assert (manifest.absent, set(rows_of(manifest).patient_id)) == (1, {"P1"})
    assert not any("nothing names patients" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["1.2.0", "5 3 7"]], r"train-rle.csv line 2: EncodedPixels is '5 3 7', expected -1, or pairs"),
        ([["1.2.0", "5 0"]], r"expected -1, or pairs"),
        ([["1.2.0", ""]], r"EncodedPixels is ''"),
        ([["1.2.0", "1048570 7"]], r"in a film of 1024x1024 pixels"),
        ([["1.2.0", "-1"], ["1.2.0", "5 3"]], r"line 2: 1.2.0 has no mask \(-1\), and one in another row"),
        ([["1.9", "-1"]], r"none of the 1 films of train-rle.csv"),
    ],
)
def test_a_faulty_table_of_masks_ends_with_a_message(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        read(siim(tmp_path, rows), "siim")


def test_the_real_tables_are_read(tmp_path):
    shutil.unpack_archive(label_files() / "kaggle_stage_2_train_labels.csv.zip", tmp_path / "rsna")
    touch(tmp_path / "rsna", "stage_2_train_images/00436515-870c-4b36-a041-de91049b9ab4.png")
    manifest = read(tmp_path / "rsna", "rsna")
    assert (manifest.listed, len(manifest.images)) == (26684, 1)
    assert len(manifest.images.boxes[0]) == 10
    assert np.multiply(manifest.images.boxes[0][:5], 1024) == pytest.approx([0, 264, 152, 213, 379])
    (tmp_path / "siim").mkdir()
    shutil.copy(label_files() / "siim-pneumothorax-train-rle.csv.gz", tmp_path / "siim")
    names = [f"1.2.276.0.7230010.3.1.4.8323329.{end}" for end in ("6904.1517875201.850819", "13666.1517875247.117800")]
    touch(tmp_path / "siim", *(f"{name}.png" for name in names))
    manifest = read(tmp_path / "siim", "siim")
    assert manifest.listed == 12047
    assert [labels_of(manifest, name)["Pneumothorax"] for name in names] == [0, 1]
