"""The manifest of VinDr-CXR in both releases: several readers of a film, and their boxes."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import Etl, Labels
from conf.workspace import Workspace
from etl.sources.published.vindr_tables import KAGGLE_FINDINGS
from etl.sources.read import read_manifest
from etl.writing.publish import publish
from tests.conftest import InlineWorkers
from tests.etl.dicom_files import build, written
from tests.etl.sources.published.published import label_files, labels_of, read, rows_of, touch, write_table
from tests.etl.tables import ANY
from tests.etl.tables import rows_of as table_of

HEADER = ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
NOTHING = ["", "", "", ""]
ROWS = [
    ["aa", "Cardiomegaly", "3", "R8", "10", "0", "30", "10"],
    ["aa", "Cardiomegaly", "3", "R9", "12", "0", "32", "10"],
    ["aa", "ILD", "5", "R9", "0", "0", "4", "5"],
    ["aa", "No finding", "14", "R10", *NOTHING],
    ["bb", "No finding", "14", "R8", *NOTHING],
    ["bb", "No finding", "14", "R9", *NOTHING],
    ["bb", "ILD", "5", "R1", "1", "1", "2", "2"],
]


def kaggle(folder: Path, rows: list[list[str]] = ROWS) -> Path:
    """A film of 40x20 pixels and one of 20x20, as DICOM files."""
    write_table(folder / "train.csv", HEADER, rows)
    (folder / "train").mkdir(exist_ok=True)
    for number, (name, width) in enumerate((("aa", 40), ("bb", 20))):
        film = build(np.zeros((20, width), np.uint8), SOPInstanceUID=f"1.2.{number}", PatientAge="061Y", PatientSex="M")
        (folder / "train" / f"{name}.dicom").write_bytes(written(film))
    return folder


def test_the_readers_of_a_film_are_joined_by_majority(tmp_path):
    manifest = read(kaggle(tmp_path), "vindr")
    assert manifest.findings == list(KAGGLE_FINDINGS)
    assert {name for name, value in labels_of(manifest, "aa").items() if value} == {"Cardiomegaly"}
    assert not any(labels_of(manifest, "bb").values())
    film = rows_of(manifest).loc["aa"]
    assert (film.age_years, film.sex, film["view"], film.patient_id) == (61, "M", "PA", "aa")
    assert film.path == str(tmp_path / "train" / "aa.dicom")
    assert any("Cardiomegaly" in note and "kappa) on 2 films" in note for note in manifest.notes)
    assert any("nothing names patients" in note for note in manifest.notes)


def test_boxes_of_present_findings_become_shares_of_the_padded_square(tmp_path):
    manifest = read(kaggle(tmp_path), "vindr")
    heart = float(KAGGLE_FINDINGS.index("Cardiomegaly"))
    # 40x20 pixels get 10 rows of black above and below.
    expected = [heart, 0.25, 0.25, 0.5, 0.25, heart, 0.3, 0.25, 0.5, 0.25]
    assert rows_of(manifest).boxes["aa"] == pytest.approx(expected)
    assert rows_of(manifest).boxes["bb"] == []
    assert "2 boxes of findings that the joined labels do not have left out" in manifest.notes


def test_any_reader_or_a_single_one_can_decide(tmp_path):
    anybody = read(kaggle(tmp_path), "vindr", labels=Labels(readers="any"))
    assert {name for name, value in labels_of(anybody, "aa").items() if value} == {"Cardiomegaly", "ILD"}
    one = read(tmp_path, "vindr", labels=Labels(readers="R1"))
    assert rows_of(one).reason.to_dict() == {"aa": "not read by R1", "bb": None}
    assert labels_of(one, "bb")["ILD"] == 1
    assert len(rows_of(one).boxes["bb"]) == 5
    with pytest.raises(
        InputError, match=r"etl.labels.readers is 'R7', expected majority, any or one of .* 'R1', 'R10'"
    ):
        read(tmp_path, "vindr", labels=Labels(readers="R7"))


def test_a_label_on_which_half_of_the_readers_agree_is_unknown_and_counted(tmp_path):
    manifest = read(kaggle(tmp_path, [*ROWS[:1], ROWS[3], *ROWS[4:]]), "vindr")
    assert np.isnan(labels_of(manifest, "aa")["Cardiomegaly"])
    assert "1 label on which just half of the readers agree, so that is unknown" in manifest.notes


def test_boxes_of_copies_need_the_size_of_the_original(tmp_path):
    kaggle(tmp_path)
    (tmp_path / "train" / "aa.dicom").unlink()
    touch(tmp_path, "train/aa.png")
    manifest = read(tmp_path, "vindr")
    assert rows_of(manifest).boxes["aa"] == []
    assert any(
        note.startswith("2 boxes of 1 film left out, because the size of the original") for note in manifest.notes
    )
    write_table(tmp_path / "train_meta.csv", ["image_id", "dim0", "dim1"], [["aa", "20", "40"]])
    assert rows_of(read(tmp_path, "vindr")).boxes["aa"][1:5] == pytest.approx([0.25, 0.25, 0.5, 0.25])
    assert "train_meta.csv" in read(tmp_path, "vindr").sha256
    write_table(tmp_path / "train_meta.csv", ["image_id", "dim0", "dim1"], [["aa", "40", "40"]])
    assert rows_of(read(tmp_path, "vindr")).boxes["aa"][1:5] == pytest.approx([0.25, 0, 0.5, 0.25])
    write_table(tmp_path / "train_meta.csv", ["image_id", "dim0", "dim1"], [["aa", "20", "40"], ["aa", "20", "41"]])
    with pytest.raises(InputError, match="train_meta.csv names 1 image twice, such as aa in lines 2 and 3"):
        read(tmp_path, "vindr")
    write_table(tmp_path / "train_meta.csv", ["image_id", "dim0", "dim1"], [["aa", "0", "40"]])
    with pytest.raises(InputError, match="line 2: dim0, dim1 are '0' and '40', expected height and width in pixels"):
        read(tmp_path, "vindr")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["aa", "Cardiomegaly", "3", "R8", "10", "0", "42", "10"]], r"line 2: the box .* exceeds its film of 40x20"),
        ([["aa", "Cardiomegaly", "3", "R8", "10", "0", "", "10"]], r"line 2: the box is 10, 0, , 10, expected x_min"),
        (
            [["aa", "Lung tumor", "3", "R8", *NOTHING]],
            r"class_name is 'Lung tumor', which is no finding of the release",
        ),
        ([["zz", "ILD", "5", "R8", *NOTHING]], r"none of the 1 films of train.csv is below"),
        ([["aa", "ILD", "5", "", *NOTHING]], r"line 2: rad_id is empty, expected one in every row \(1 row without\)"),
        ([ROWS[0], ["", "ILD", "5", "R1", *NOTHING]], r"line 3: image_id is empty"),
        ([["aa", "ILD", "5"]], r"line 2: 3 cells, expected 8 as in the header: the file is truncated"),
    ],
)
def test_a_faulty_table_ends_with_a_message(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        read(kaggle(tmp_path, rows), "vindr")


def test_a_reader_who_contradicts_himself_is_counted(tmp_path):
    manifest = read(kaggle(tmp_path, [*ROWS, ["bb", "No finding", "14", "R1", *NOTHING]]), "vindr")
    assert manifest.not_understood == {"labels": {"No finding beside ILD": 1}}


LABEL_HEADER = ["image_id", "rad_id", "Cardiomegaly", "ILD", "Pneumonia", "Other diseases", "No finding"]
BOX_HEADER = ["image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max"]
TRAIN = [["aa", "R1", 1, 0, 1, 0, 0], ["aa", "R2", 1, 0, 0, 0, 0], ["aa", "R3", 0, 0, 1, 0, 0]]
TEST = [["bb", 0, 1, 0, 0, 0]]


def physionet(folder: Path, train: list[list] = TRAIN, test: list[list] = TEST) -> Path:
    kaggle(folder)
    (folder / "train.csv").unlink()
    (folder / "test").mkdir()
    (folder / "train" / "bb.dicom").rename(folder / "test" / "bb.dicom")
    tables = folder / "annotations"
    write_table(tables / "image_labels_train.csv", LABEL_HEADER, train)
    names = ["Other disease" if name == "Other diseases" else name for name in LABEL_HEADER if name != "rad_id"]
    write_table(tables / "image_labels_test.csv", names, test)
    box = ["aa", "R1", "Cardiomegaly", 10, 0, 30, 10]
    write_table(tables / "annotations_train.csv", BOX_HEADER, [box, ["aa", "R3", "No finding", *NOTHING]])
    header = [name for name in BOX_HEADER if name != "rad_id"]
    write_table(tables / "annotations_test.csv", header, [["bb", "ILD", 0, 0, 20, 20]])
    return folder


def test_the_release_on_physionet_has_more_findings_and_a_test_set(tmp_path):
    manifest = read(physionet(tmp_path), "vindr", val_fraction=0.001)
    assert manifest.findings == ["Cardiomegaly", "ILD", "Pneumonia", "Other diseases"]
    assert labels_of(manifest, "aa") == {"Cardiomegaly": 1, "ILD": 0, "Pneumonia": 1, "Other diseases": 0}
    assert labels_of(manifest, "bb") == {"Cardiomegaly": 0, "ILD": 1, "Pneumonia": 0, "Other diseases": 0}
    rows = rows_of(manifest)
    assert rows.split.to_dict() == {"aa": "train", "bb": "test"}
    assert rows.boxes["aa"] == pytest.approx([0, 0.25, 0.25, 0.5, 0.25])
    assert rows.boxes["bb"] == pytest.approx([1, 0, 0, 1, 1])
    assert len(manifest.sha256) == 4


@pytest.mark.parametrize(
    ("name", "header", "rows", "said"),
    [
        ("image_labels_train", [name for name in LABEL_HEADER if name != "rad_id"], TEST, "lacks the column 'rad_id'"),
        (
            "image_labels_train",
            LABEL_HEADER,
            [*TRAIN, ["aa", "R1", 0, 0, 1, 0, 0]],
            "twice, such as aa R1 in lines 2 and",
        ),
        ("image_labels_train", LABEL_HEADER, [["aa", "R1", 2, 0, 1, 0, 0]], "Cardiomegaly is '2', expected 1"),
        (
            "image_labels_test",
            ["image_id", "Mass", "No finding"],
            [["bb", 0, 1]],
            "has other findings than image_labels_t",
        ),
        (
            "image_labels_test",
            ["image_id", *LABEL_HEADER[2:]],
            [["aa", 0, 1, 0, 0, 0]],
            "aa is in image_labels_train.csv",
        ),
        (
            "annotations_train",
            BOX_HEADER,
            [["aa", "R1", "Mass", 1, 1, 2, 2]],
            "class_name is 'Mass', which is no finding",
        ),
        (
            "annotations_train",
            BOX_HEADER,
            [["cc", "R1", "ILD", 1, 1, 2, 2]],
            "cc is not in the table of labels beside it",
        ),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(tmp_path, name, header, rows, said):
    physionet(tmp_path)
    write_table(tmp_path / "annotations" / f"{name}.csv", header, rows)
    with pytest.raises(InputError, match=said):
        read(tmp_path, "vindr")


def test_the_real_table_of_kaggle_is_read(tmp_path):
    shutil.copy(label_files() / "vinbigdata-train.csv.gz", tmp_path / "train.csv.gz")
    touch(tmp_path, "train/9a5094b2563a1ef3ff50dc5c7ff71345.png", "train/50a418190bc3fb1ef1633bf9678929b3.png")
    started = time.monotonic()
    manifest = read(tmp_path, "vindr")
    assert time.monotonic() - started < 60
    assert (manifest.listed, len(manifest.images)) == (15000, 2)
    assert labels_of(manifest, "9a5094b2563a1ef3ff50dc5c7ff71345")["Cardiomegaly"] == 1
    assert any("on 15,000 films: Aortic enlargement 0.78" in note for note in manifest.notes)


@pytest.mark.parametrize("square", ["pad", "stretch"])
def test_a_box_of_the_table_lies_on_the_pixels_that_it_marks(tmp_path, square):
    pixels = np.full((200, 120), 400, np.uint16)
    pixels[::7, ::5] += 300
    pixels[40:80, 60:90] = 4095
    source = tmp_path / "source"
    # So many that each split gets some.
    names = ["aa", *(f"f{number}" for number in range(20))]
    for number, name in enumerate(names):
        touch(source, f"train/{name}.dicom")
        noise = np.random.default_rng(number).integers(0, 4096, pixels.shape, np.uint16)
        film = build(noise if number else pixels, SOPInstanceUID=f"1.2.{number}", BitsStored=12)
        (source / "train" / f"{name}.dicom").write_bytes(written(film))
    others = [[name, *ROWS[4][1:]] for name in names[1:]]
    write_table(source / "train.csv", HEADER, [["aa", "Nodule/Mass", "8", "R1", "60", "40", "90", "80"], *others])
    settings = Etl(format="vindr", square=square, sizes_px=[200], quality=ANY, val_fraction=0.4)
    workspace = Workspace.at(str(tmp_path / "workspace"))
    manifest = read_manifest(source, settings, InlineWorkers())
    card = publish(workspace.tables(""), settings, str(source), manifest, InlineWorkers()).card
    row = table_of(workspace, card).loc["aa"]
    finding, left, top, width, height = row.boxes
    assert card.findings[int(finding)] == "Nodule/Mass"
    rows, columns = np.where(np.frombuffer(row.image_200, np.uint8).reshape(200, 200) > 200)
    marked = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 200
    np.testing.assert_allclose([left, top, left + width, top + height], marked, atol=2 / 200)
