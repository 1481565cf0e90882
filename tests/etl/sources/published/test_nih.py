import numpy as np
import pandas as pd
import pytest

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.schema import NIH_FINDINGS
from etl.sources.read import read_manifest

SETTINGS = Etl(sizes_px=[64], val_fraction=0.3)


def rewrite_labels(folder, old: str, new: str) -> None:
    path = folder.root / "Data_Entry_2017_v2020.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_every_listed_image_is_there_with_its_findings(nih_folder):
    manifest = read_manifest(nih_folder.root, SETTINGS)
    assert (manifest.listed, manifest.absent, sum(manifest.left_out.values())) == (48, 0, 0)
    row = manifest.images.set_index("image_id").loc["00000003_001.png"]
    present = [finding for finding, value in zip(NIH_FINDINGS, row.findings, strict=True) if value == 1]
    assert present == ["Effusion", "Mass"]
    assert (row.patient_id, row.follow_up, row.age_years, row.sex, row["view"]) == ("3", 1, 58, "M", "PA")


def test_absent_and_unlisted_images_are_counted(nih_folder):
    (nih_folder.root / "images" / "00000001_000.png").rename(nih_folder.root / "images" / "other.png")
    manifest = read_manifest(nih_folder.root, SETTINGS)
    assert (manifest.listed, manifest.absent, sum(manifest.left_out.values())) == (48, 1, 1)


def test_boxes_of_images_that_are_not_listed_are_counted(nih_folder):
    boxes = "".join(f"{name},Mass,0,0,9,9,,,\n" for name in ("00000001_000.png", "x.png", "y.png", "y.png"))
    (nih_folder.root / "BBox_List_2017.csv").write_text(f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{boxes}")
    manifest = read_manifest(nih_folder.root, SETTINGS)
    assert manifest.notes == ["2 images of BBox_List_2017.csv, such as x.png, are not in Data_Entry_2017_v2020.csv"]
    assert manifest.images.boxes.str.len().sum() == 5


def test_boxes_without_a_header_are_all_read(nih_folder):
    (nih_folder.root / "BBox_List_2017.csv").write_text("00000001_000.png,Mass,0,0,9,9,,,\n")
    assert read_manifest(nih_folder.root, SETTINGS).images.boxes.str.len().sum() == 5


@pytest.mark.parametrize("box", ["900,900,500,500", "500,500,700,800"])
def test_a_box_beyond_the_film_is_refused(nih_folder, box):
    (nih_folder.root / "BBox_List_2017.csv").write_text(f"a,b,c,,,\n00000001_000.png,Mass,{box},,,\n")
    with pytest.raises(InputError, match=r"BBox_List_2017.csv line 2: .* x, y, width and height"):
        read_manifest(nih_folder.root, SETTINGS)


def test_a_column_that_is_missing_is_said(nih_folder):
    rewrite_labels(nih_folder, "Patient Gender", "Patient Sex")
    notes = read_manifest(nih_folder.root, SETTINGS).notes
    assert notes == ["Data_Entry_2017_v2020.csv has no column 'Patient Gender', so that is unknown"]


def test_names_of_the_lists_that_are_no_images_are_said(nih_folder):
    nih_folder.test.append("4.png")
    nih_folder.write_lists()
    note = "1 name in test_list.txt is no image of the source, such as '4.png'"
    assert read_manifest(nih_folder.root, SETTINGS).notes == [note]
    nih_folder.test = [f"images/{name}" for name in nih_folder.test]
    nih_folder.write_lists()
    with pytest.raises(
        InputError, match="none of the 13 names in test_list.txt, such as 'images/0000.*: write them alike"
    ):
        read_manifest(nih_folder.root, SETTINGS)


def test_downloaded_folders_are_found(nih_folder):
    (nih_folder.root / "images_001").mkdir()
    (nih_folder.root / "images").rename(nih_folder.root / "images_001" / "images")
    assert read_manifest(nih_folder.root, SETTINGS).absent == 0


def test_an_image_in_neither_list_has_no_split(nih_folder):
    nih_folder.train_val.remove("00000001_000.png")
    nih_folder.write_lists()
    split = read_manifest(nih_folder.root, SETTINGS).images.set_index("image_id").split
    assert pd.isna(split["00000001_000.png"])
    assert split.isna().sum() == 1


def test_pleural_thickening_is_one_finding_in_both_spellings(nih_folder):
    nih_folder.rows[0][1], nih_folder.rows[1][1] = "Pleural_Thickening", "Pleural Thickening|Mass"
    nih_folder.write_lists()
    findings = np.stack(read_manifest(nih_folder.root, SETTINGS).images.findings[:2])
    assert findings[:, NIH_FINDINGS.index("Pleural_Thickening")].tolist() == [1, 1]


def test_byte_order_mark_and_windows_lines_are_read(nih_folder):
    path = nih_folder.root / "Data_Entry_2017_v2020.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    nih_folder.root.joinpath("test_list.txt").write_bytes("\r\n".join(nih_folder.test).encode())
    manifest = read_manifest(nih_folder.root, SETTINGS)
    assert manifest.images.split.notna().all()
    assert manifest.images["view"].eq("PA").all()


def test_odd_values_are_unknown_and_counted(nih_folder):
    nih_folder.rows[0][2:7] = ["", "1", "413", "x", "XL"]
    nih_folder.write_lists()
    manifest = read_manifest(nih_folder.root, SETTINGS)
    assert manifest.not_understood == {"age": {"413": 1}, "sex": {"x": 1}, "view": {"XL": 1}}
    first = manifest.images.iloc[0]
    assert first.age_years is pd.NA
    assert first.sex is None
    assert first["view"] is None


@pytest.mark.parametrize(
    ("cell", "age_years"),
    [
        ("060Y", 60),
        ("060", 60),
        ("58.0", 58),
        ("018M", 1.5),
        ("003D", 3 / 365.25),
        ("026W", 182 / 365.25),
        ("413Y", None),
    ]
    + [("413D", 413 / 365.25), ("", None), ("Y", None), ("12X", None), ("-3", None)]
    + [("9" * 400, None), ("\u0663", None)],
)
def test_ages_have_units_in_the_first_release(nih_folder, cell, age_years):
    nih_folder.rows[0][4] = cell
    nih_folder.write_lists()
    read = read_manifest(nih_folder.root, SETTINGS).images.age_years[0]
    if age_years is None:
        assert read is pd.NA
    else:
        assert read == pytest.approx(age_years)


@pytest.mark.parametrize("comma_in_header", ["", ","])
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_the_first_release_is_read(nih_folder, comma_in_header):
    # Its rows end with one comma more than v2020's, and in some copies so does its header.
    expected = read_manifest(nih_folder.root, SETTINGS).images
    path = nih_folder.root / "Data_Entry_2017_v2020.csv"
    header, *rows = path.read_text().splitlines()
    lines = [header + comma_in_header, *(row.replace(",58,", ",058Y,") + "," for row in rows)]
    path.unlink()
    (nih_folder.root / "Data_Entry_2017.csv").write_text("\n".join(lines))
    pd.testing.assert_frame_equal(read_manifest(nih_folder.root, SETTINGS).images, expected)


def test_a_patient_is_the_same_however_the_number_is_written(nih_folder):
    for row, patient in zip(nih_folder.rows, ["1", " 00000001", "2 ", "02", "P03", "P3", "000", "0"], strict=False):
        row[3] = patient
    nih_folder.write_lists()
    patients = read_manifest(nih_folder.root, SETTINGS).images.patient_id
    assert patients[:8].tolist() == ["1", "1", "2", "2", "P03", "P3", "0", "0"]


def test_blanks_around_an_image_name_are_ignored(nih_folder):
    nih_folder.rows[0][0] = " 00000001_000.png "
    nih_folder.write_lists()
    manifest = read_manifest(nih_folder.root, SETTINGS)
    assert (manifest.absent, manifest.images.split.isna().sum()) == (0, 0)
    nih_folder.rows.append(["00000001_000.png", *nih_folder.rows[0][1:]])
    nih_folder.write_lists()
    with pytest.raises(InputError, match=r"names 1 image twice, such as 00000001_000.png"):
        read_manifest(nih_folder.root, SETTINGS)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty, expected a table with a header"),
        (b"\xff\xfeI\x00m\x00", "is not a .*utf-8"),
        (
            b'Image Index,Finding Labels,Patient ID\n"a.png,Mass,1\n',
            "line 2: a quote opens a cell that no other one closes",
        ),
        (b"Image Index,Finding Labels,Patient ID\na.png,Mass,1\x00\n", "is not a .*null bytes"),
    ],
)
def test_a_label_file_that_is_no_table(nih_folder, content, fault):
    (nih_folder.root / "Data_Entry_2017_v2020.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"Data_Entry_2017_v2020.csv {fault}.*get a fresh copy"):
        read_manifest(nih_folder.root, SETTINGS)


@pytest.mark.parametrize("keep", ["Effusion,1,12", "Effusion,1,1234,58,F"])
def test_a_row_that_was_cut_off_is_refused(nih_folder, keep):
    # Half a patient's number would name another patient, who may be in another split.
    path = nih_folder.root / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text() + f"00001234_001.png,{keep}")
    cells = 1 + len(keep.split(","))
    with pytest.raises(
        InputError, match=rf"v2020.csv line 50: {cells} cells, expected 11 as in the header: the file is"
    ):
        read_manifest(nih_folder.root, SETTINGS)


def test_a_row_without_a_patient_is_named_with_its_line(nih_folder):
    nih_folder.rows[6][3] = " "
    nih_folder.write_lists()
    with pytest.raises(InputError, match=r"Data_Entry_2017_v2020.csv line 8: no patient"):
        read_manifest(nih_folder.root, SETTINGS)


@pytest.mark.parametrize("pattern", ["/abs", "", ".", "images**"])
def test_a_wrong_folder_pattern_is_refused(nih_folder, pattern):
    with pytest.raises(InputError, match=r"etl.image_folders holds '.*expected .*below the source"):
        read_manifest(nih_folder.root, Etl(image_folders=[pattern]))


def test_a_folder_that_two_patterns_reach_counts_once_and_files_do_not_count(nih_folder):
    (nih_folder.root / "images_001.tar.gz").touch()
    manifest = read_manifest(nih_folder.root, Etl(image_folders=["images*", "*", "images"]))
    assert len(manifest.images) == 48


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match=r"no source folder at .*nowhere.*--etl.source"):
        read_manifest(tmp_path / "nowhere", SETTINGS)


def test_no_label_file(nih_folder):
    (nih_folder.root / "Data_Entry_2017_v2020.csv").unlink()
    with pytest.raises(InputError, match="one label file"):
        read_manifest(nih_folder.root, SETTINGS)


def test_a_missing_column_is_named(nih_folder):
    rewrite_labels(nih_folder, "Finding Labels", "Labels")
    with pytest.raises(InputError, match="lacks the columns .'Finding Labels'."):
        read_manifest(nih_folder.root, SETTINGS)


def test_a_label_outside_the_vocabulary_is_named_with_its_line(nih_folder):
    nih_folder.rows[6][1] = "Effusion|Efusion"
    nih_folder.write_lists()
    with pytest.raises(InputError, match=r"line 8: label 'Efusion'"):
        read_manifest(nih_folder.root, SETTINGS)


def test_an_image_named_twice(nih_folder):
    nih_folder.rows.append(nih_folder.rows[0])
    nih_folder.write_lists()
    with pytest.raises(InputError, match=r"names 1 image twice, such as 00000001_000.png"):
        read_manifest(nih_folder.root, SETTINGS)


def test_one_name_in_two_folders(nih_folder):
    (nih_folder.root / "images_001" / "images").mkdir(parents=True)
    (nih_folder.root / "images_001" / "images" / "00000001_000.png").write_bytes(b"x")
    with pytest.raises(InputError, match="two images are named 00000001_000.png"):
        read_manifest(nih_folder.root, SETTINGS)


def test_none_of_the_images_is_there(nih_folder):
    for image in (nih_folder.root / "images").iterdir():
        image.unlink()
    with pytest.raises(InputError, match="none of the 48 images"):
        read_manifest(nih_folder.root, SETTINGS)


def test_a_patient_in_both_lists(nih_folder):
    nih_folder.test.append("00000001_001.png")
    nih_folder.train_val.remove("00000001_001.png")
    nih_folder.write_lists()
    with pytest.raises(
        InputError,
        match=r"1 patient has images in both .* such as 1 with 00000001_000.png in the first and 00000001_001",
    ):
        read_manifest(nih_folder.root, SETTINGS)


def test_the_real_label_file(nih_sample):
    manifest = read_manifest(nih_sample, Etl())
    assert (manifest.listed, len(manifest.images), manifest.absent) == (112_120, 241, 111_879)
    assert manifest.images.split.value_counts()["test"] == 71
    assert manifest.images.patient_id.nunique() == 177


@pytest.mark.parametrize("cell", ["-1", "1.5", "inf", "99999999999", "1e400", "x"])
def test_a_follow_up_that_is_no_count_is_unknown(nih_folder, cell):
    nih_folder.rows[0][2] = cell
    nih_folder.write_lists()
    assert read_manifest(nih_folder.root, SETTINGS).images.follow_up[0] is pd.NA


def test_no_finding_beside_a_finding_is_counted_and_the_finding_stays(nih_folder):
    nih_folder.rows[0][1], nih_folder.rows[1][1] = "No Finding|Mass", "No Finding"
    nih_folder.write_lists()
    manifest = read_manifest(nih_folder.root, SETTINGS)
    assert manifest.not_understood["labels"] == {"No Finding|Mass": 1}
    assert manifest.images.findings[0].sum() == 1


def test_the_table_of_the_small_sample_is_read(nih_folder):
    (nih_folder.root / "Data_Entry_2017_v2020.csv").rename(nih_folder.root / "sample_labels.csv")
    assert read_manifest(nih_folder.root, SETTINGS).listed == 48


def test_files_beside_the_images_are_left_out_and_counted(nih_folder):
    for name in ("images/._00000001_000.png", "images/notes.txt", "README.pdf", "elsewhere/00000001_000.png"):
        (nih_folder.root / name).parent.mkdir(exist_ok=True)
        (nih_folder.root / name).touch()
    manifest = read_manifest(nih_folder.root, SETTINGS)
    why = "not listed in Data_Entry_2017_v2020.csv, or outside of the image folders"
    assert manifest.left_out == {"hidden": 1} | {f"{kind}, {why}": 1 for kind in (".txt", ".pdf", ".png")}


def test_films_in_other_folders_are_said_only_if_they_have_another_ending(nih_folder):
    name = nih_folder.rows[0][0]
    moved = nih_folder.root / "small" / name
    moved.parent.mkdir()
    (film,) = nih_folder.root.glob(f"images*/**/{name}")
    film.rename(moved)
    assert read_manifest(nih_folder.root, SETTINGS).notes == []
    moved.rename(moved.with_suffix(".jpg"))
    (note,) = read_manifest(nih_folder.root, SETTINGS).notes
    assert note.startswith(
        f"1 absent image has a file of another ending, such as 'small/{moved.stem}.jpg' for {name!r}"
    )
