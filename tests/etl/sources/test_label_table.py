"""The manifest of any table with a column map."""

import gzip
import re
from dataclasses import replace

import numpy as np
import pytest
from upath import UPath

from conf.errors import InputError
from conf.settings import Columns, Etl
from etl.contract.images.pixels import BadImage
from etl.sources.read import read_manifest
from etl.sources.split import NO_PATIENTS, find_leaks
from etl.sources.tables.file import table_path
from etl.writing.shard_file import load_squares
from tests.etl.other_files import OTHERS

TABLE = """file,person,who's old,gender,Mass,Odd, finding
a/1.png,007,018M,male,1,0,
"b/x, y.tif",7,60,F,0.0,-1,
c/ü.jpg,8,,x,,1,
gone.png,9,50,F,1,1,
"""
COLUMNS = Columns(image="file", patient="person", age="who's old", sex="gender", findings=["Mass", "Odd"])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "labels.csv").write_text(TABLE)
    for name in ("a/1.png", "b/x, y.tif", "c/ü.jpg", "c/unlisted.PNG", "c/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read(folder, columns: Columns = COLUMNS, **changes):
    return read_manifest(folder, Etl(format="csv", columns=columns, **changes))


def with_column(name: str, cells: list[str]) -> str:
    return "\n".join(f"{line},{cell}" for line, cell in zip(TABLE.splitlines(), [name, *cells], strict=True))


def test_rows_follow_the_contract(folder):
    manifest = read(folder)
    assert (manifest.listed, manifest.absent, sum(manifest.left_out.values())) == (4, 1, 2)
    assert manifest.findings == ["Mass", "Odd"]
    images = manifest.images
    assert images.image_id.tolist() == ["a/1.png", "b/x, y.tif", "c/ü.jpg"]
    assert images.patient_id.tolist() == ["7", "7", "8"]
    assert images.age_years[:2].tolist() == [1.5, 60]
    assert images.age_years.isna().tolist() == [False, False, True]
    assert images.sex.tolist() == ["M", "F", None]
    np.testing.assert_array_equal(np.stack(images.findings), [[1, 0], [0, np.nan], [np.nan, 1]])


def test_a_compressed_table_is_read_where_the_setting_names_it(folder):
    plain = read(folder)
    (folder / "labels.csv.gz").write_bytes(gzip.compress((folder / "labels.csv").read_bytes()))
    (folder / "labels.csv").unlink()
    packed = read(folder, replace(COLUMNS, label_file="labels.csv.gz"))
    assert packed.images.astype(str).equals(plain.images.astype(str))
    assert sum(packed.left_out.values()) == sum(plain.left_out.values())
    (folder / "labels.csv.gz").write_bytes(b"")
    with pytest.raises(InputError, match="labels.csv.gz is empty, expected a table"):
        read(folder, replace(COLUMNS, label_file="labels.csv.gz"))


def test_without_names_every_other_column_is_a_finding(folder):
    columns = Columns(image="file", patient="person", age="who's old", sex="gender")
    assert read(folder, columns).findings == ["Mass", "Odd", "finding"]


def test_two_columns_for_one_finding_are_refused_at_the_start(folder):
    (folder / "labels.csv").write_text(with_column("mass", ["1", "0", "", "1"]))
    columns = Columns(image="file", patient="person", findings=["Mass", "Odd", "mass"])
    with pytest.raises(InputError, match=r"'Mass' and 'mass' differ only by case.*: rename one in the label table"):
        read(folder, columns)


def test_the_split_column_of_the_user_counts(folder):
    (folder / "labels.csv").write_text(with_column("split", ["train", "train", "test", "val"]))
    columns = Columns(image="file", patient="person", findings=["Mass"], split="split")
    assert read(folder, columns).images.split.tolist() == ["train", "train", "test"]


HASHED = "no split column is named: a hash of the patient chooses the split"


@pytest.mark.parametrize(
    ("cells", "images", "patient", "notes"),
    [
        ("ab", ["0.png", "1.png"], "patient", ["columns that are not read: set", HASHED]),
        (
            ("train", "TEST"),
            ["0.png", "1.png"],
            "patient",
            ["columns that are not read: set", HASHED, "the column 'set' holds splits: name it with --etl.columns.spl"],
        ),
        (("train", ""), ["0.png", "1.png"], "patient", ["columns that are not read: set", HASHED]),
        (
            "ab",
            ["x/train/0.png", "x/testset/1.png"],
            "patient",
            ["columns that are not read: set", HASHED, "the images lie in folders of splits, such as 'train', which"],
        ),
        ("ab", ["train/0.png", "more/1.png"], "patient", ["columns that are not read: set", HASHED]),
        ("ab", ["train/0.png", "train/1.png"], "patient", ["columns that are not read: set", HASHED]),
        (
            "ab",
            ["0.png", "1.png"],
            "",
            [
                "columns that are not read: patient, set",
                "nothing names splits: a hash chooses them; nothing names",
            ],
        ),
    ],
)
def test_what_is_not_read_of_a_table_is_said(tmp_path, cells, images, patient, notes):
    for image in images:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).touch()
    rows = [f"{image},{at},{cell},1" for at, (image, cell) in enumerate(zip(images, cells, strict=True))]
    (tmp_path / "labels.csv").write_text("\n".join(["image,patient,set,Mass", *rows]))
    said = read(tmp_path, Columns(patient=patient, findings=["Mass"])).notes
    assert len(said) == len(notes) and all(map(str.startswith, said, notes))
    hashed = read(tmp_path, Columns(patient=patient, findings=["Mass"]), split="hashed").notes
    assert hashed == notes[:1] + [NO_PATIENTS] * (not patient)


def test_a_split_column_that_is_named_needs_no_note(tmp_path):
    (tmp_path / "labels.csv").write_text("image,patient,part,Mass\n0.png,1,train,1\n1.png,2,test,0\n")
    for name in ("0.png", "1.png"):
        (tmp_path / name).touch()
    assert read(tmp_path, Columns(split="part", findings=["Mass"])).notes == []
    with pytest.raises(
        InputError, match="part is 'train', .*: if it holds splits, name it with --etl.columns.split part;"
    ):
        read(tmp_path, Columns())


def test_other_words_for_the_splits_are_understood(folder):
    (folder / "labels.csv").write_text(with_column("split", ["Training", "", "holdout", "validate"]))
    columns = Columns(image="file", patient="", findings=["Mass"], split="split")
    assert read(folder, columns).images.split.tolist() == ["train", None, "test"]


def test_a_word_that_is_no_split_is_refused_with_the_known_ones(folder):
    (folder / "labels.csv").write_text(with_column("split", ["train", "fold 3", "fold 3", "test"]))
    columns = Columns(image="file", patient="", findings=["Mass"], split="split")
    with pytest.raises(InputError, match=r"not known: 2 'fold 3'; known are train: .*; val: val, valid, .*; test: "):
        read(folder, columns)


def test_words_that_are_not_understood_are_counted(folder):
    (folder / "labels.csv").write_text(with_column("view", ["AP Supine", "XYZ", "XYZ", "PA"]))
    columns = Columns(image="file", patient="person", age="who's old", sex="gender", findings=["Mass"], view="view")
    manifest = read(folder, columns)
    assert manifest.images["view"].tolist() == ["AP", None, None]
    # The row of gone.png, which has no file, is not counted.
    assert manifest.not_understood == {"sex": {"x": 1}, "view": {"XYZ": 2}}


def test_a_patient_in_two_splits_of_the_user_is_named(folder):
    (folder / "labels.csv").write_text(with_column("split", ["train", "test", "val", "val"]))
    with pytest.raises(InputError, match="1 patient is in more than one split, such as 7 in lines 2 and 3: fix"):
        read(folder, Columns(image="file", patient="person", findings=["Mass"], split="split"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(image="picture", patient="person"), "lacks the columns .'picture'."),
        (Columns(image="file", patient="person", findings=["Msas"]), "lacks the columns .'Msas'."),
        (
            Columns(image="file", patient="person", findings=["gender"]),
            r"line 2: gender is 'male', expected 1 \(present\)",
        ),
        (Columns(label_file="none.csv"), "no label file at .*none.csv"),
    ],
)
def test_a_wrong_map_is_named(folder, columns, message):
    with pytest.raises(InputError, match=message):
        read(folder, columns)


@pytest.mark.parametrize("blank", ["\r\n", "\n\n", "  \n"])
def test_blank_lines_are_skipped(folder, blank):
    header, rows = TABLE.split("\n", 1)
    plain = read(folder)
    (folder / "labels.csv").write_text(f"{blank}{header}\n{blank}{rows}{blank}", newline="")
    assert read(folder).images.equals(plain.images)


def test_cells_beyond_the_header_are_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na.png,1,0,left over\n")
    with pytest.raises(
        InputError, match=r"labels.csv line 2: 4 cells, expected 3 as in the header: put cells that hold"
    ):
        read_manifest(tmp_path, Etl(format="csv"))


def test_a_split_column_without_validation_gets_it_from_the_training_patients(tmp_path):
    lines = [f"{n}.png,{n // 2},{'test' if n < 20 else 'train'},1" for n in range(100)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,patient,split,Mass,,", *(line + ",," for line in lines)]))
    for n in range(100):
        (tmp_path / f"{n}.png").write_bytes(b"")
    manifest = read_manifest(tmp_path, Etl(format="csv", val_fraction=0.5, columns=Columns(split="split")))
    assert manifest.findings == ["Mass"]
    split = manifest.images.split
    assert (split[:20] == "test").all()
    assert set(split[20:]) == {"train", "val"}
    assert find_leaks(manifest.images[["patient_id", "split"]]) == []


@pytest.mark.parametrize("header", ["image,patient, patient,Mass", "image,patient,Mass,Mass"])
def test_two_columns_of_one_name_are_refused(folder, header):
    (folder / "labels.csv").write_text(f"{header}\na/1.png,1,1,0\n")
    with pytest.raises(InputError, match=r"labels.csv has the column '(patient|Mass)' twice: rename or remove one"):
        read(folder, Columns())


def test_columns_without_a_role_are_findings_and_those_without_a_name_are_not_read(folder):
    (folder / "labels.csv").write_text(",image,patient,Mass\n7,a/1.png,1,1\n")
    manifest = read(folder, Columns())
    assert manifest.findings == ["Mass"]
    assert manifest.notes == [
        "every column without a role is a finding: Mass",
        "not read: 1 column without a name",
        HASHED,
    ]


@pytest.mark.parametrize(
    ("column", "cell"), [("patient", "nan"), ("patient", "N/A"), ("image", ""), ("patient", "None")]
)
def test_a_row_without_a_patient_or_an_image_is_refused(folder, column, cell):
    row = {"image": "a/1.png", "patient": "1"} | {column: cell}
    (folder / "labels.csv").write_text(f"image,patient,Mass\nb/2.png,3,1\n{row['image']},{row['patient']},0\n")
    with pytest.raises(InputError, match=rf"line 3: no {column} \('{cell}'\), expected one in every row"):
        read(folder, Columns())


def test_a_line_is_counted_as_editors_do(folder):
    rows = '\n"a/1.png",3,1,"two\nlines"\n\nb/2.png,4,yes,\n'
    (folder / "labels.csv").write_text(f"image,patient,Mass,note\n{rows}")
    with pytest.raises(InputError, match=r"labels.csv line 6: Mass is 'yes'"):
        read(folder, Columns(findings=["Mass"]))


@pytest.mark.parametrize(
    "rows",
    [
        'a/1.png,"3,1,x\nb/2.png,3"" ,1,x\n'.replace('"" ', '"'),
        '"a/1.png,3,1,x\nb/2.png",3,1,x\n',
        'a/1.png,3,1,"x\nb/2.png,3,1,x"\n',
    ],
)
def test_a_stray_quote_takes_no_rows_with_it(folder, rows):
    (folder / "labels.csv").write_text(f"image,patient,Mass,note\n{rows}")
    with pytest.raises(InputError, match="labels.csv line 2: a quote opens a cell of the column .* ends in line 3"):
        read(folder, Columns(findings=["Mass"]))


REPORT = "FINDINGS: Heart size is normal.\nLungs are clear, no effusion, no pneumothorax, no consolidation."


@pytest.mark.parametrize(
    "report",
    [
        REPORT,
        "clear, normal, none, ok\nno effusion",
        "1\n2, 3\n4, 5, 6, 7\n",
        'a ""quote"", so\nb, c, d, e',
        "x\nImpression: none, 3",
        "\n\n",
    ],
)
@pytest.mark.parametrize("header", ["image,patient,Mass,report", "report,image,patient,Mass"])
def test_a_report_of_several_lines_is_no_stray_quote(folder, report, header):
    rows = [("a/1.png", "1", f'"{report}"'), ("c/ü.jpg", "2", '"ok"')]
    order = header.split(",")
    lines = [",".join({"image": a, "patient": b, "Mass": "1", "report": c}[name] for name in order) for a, b, c in rows]
    (folder / "labels.csv").write_text("\n".join([header, *lines]))
    assert read(folder, Columns(findings=["Mass"])).listed == 2


def test_a_row_within_a_report_is_found_and_may_belong_there(folder):
    (folder / "labels.csv").write_text('image,patient,Mass,x\na/1.png,1,1,"one\nb/2.png,2,0,two\nc/3.png,3,0,three"\n')
    with pytest.raises(InputError, match="line 2: .*'x' that ends in line 4, .*leave the column out of the table"):
        read(folder, Columns(findings=["Mass"]))
    (folder / "labels.csv").write_text('image,x,patient,Mass\nc/ü.jpg,a,9,0\na/1.png,"one,1,1\nb/2.png,"two",2,0\n')
    with pytest.raises(InputError, match=r"labels.csv line 3: "):
        read(folder, Columns(findings=["Mass"]))
    (folder / "labels.csv").write_text('image,patient,x,Mass\nc/ü.jpg,9,a,0\na/1.png,1,"one,1\nb/2.png,2,"two",0\n')
    with pytest.raises(InputError, match="line 3: a quote opens a cell of the column 'x' that ends in line 4"):
        read(folder, Columns(findings=["Mass"]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "image,patient,x,Mass\na.png,1,pain, left,1\n",
            "line 2: 5 cells, expected 4 .*: put cells that hold commas in",
        ),
        (
            "image,patient,Mass\na.png,1,1\nb.png,2,0,x\n",
            "line 3: 4 cells, expected 3 .*: put cells that hold commas in",
        ),
        ('image,patient,Mass,x\na.png,1,1, "x, y"\n', "line 2: 5 cells, .* right behind the comma, without a blank"),
        ('image,patient,Mass,x\na.png,1,1,"x \\"y, z\\" u"\n', r"line 2: 5 cells, .* write a quote as \"\", without a"),
        ("image;patient;Mass\na.png;1;1,0\n", "lacks the columns .*; separate its cells by commas"),
        ("image;patient;Age, years;Mass\na.png;1;3;1\n", "lacks the columns .*; separate its cells by commas"),
        (
            "sep=,\nimage,patient,Mass\na.png,1,1\n",
            "lacks the columns .*; line 2 has them, so remove the lines above it",
        ),
        ("# mine, of 2020\n\nimage,patient,Mass\na.png,1,1\n", "; line 3 has them, so remove the lines above it"),
        ('image, "patient", "Mass"\na.png, "1", "1"\n', "; write the quote right behind the comma, without a blank"),
        ('image,patient,Mass\na.png,1,1\nb.png,"2,1\n', "line 3: a quote opens a cell that no other one closes"),
        (f'image,patient,Mass\na.png,"1,1\n{"b.png,2,1" * 20_000}"\n', "line 2: a quote opens a cell that is too long"),
        ("", "labels.csv is empty, expected a table with a header"),
        ('image,patient,Mass,x\na.png,1,1,"l1\nl2\nl3"\nb.png,2,7,x\n,,,\n', "line 5: Mass is '7'"),
        ("image,patient,Mass\n,,\na.png,1,7\n", "line 3: Mass is '7'"),
        ("image,patient,Mass\na.png,1,1\n,,\n", r"line 3: no image \(''\)"),
    ],
)
def test_a_table_that_is_written_wrongly_is_refused_with_line_and_step(tmp_path, table, message):
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        read(tmp_path, Columns(findings=["Mass"]))


def test_commas_at_the_ends_of_rows_say_nothing(folder):
    (folder / "labels.csv").write_text("image,patient,Mass\na/1.png,1,1,,,\nc/ü.jpg,2,0\n")
    assert read(folder, Columns()).findings == ["Mass"]


def test_patients_are_the_same_in_every_unicode_form_and_twins_by_case_are_said(folder):
    rows = "a/1.png,M\u00fc,1\nb/2.png,Mu\u0308,1\nc/unlisted.PNG,m\u00fc,0\n"
    (folder / "labels.csv").write_text("image,patient,Mass\n" + rows)
    manifest = read(folder, Columns())
    assert manifest.images.patient_id.nunique() == 2
    assert "2 patients differ from another one by case only, such as 'M\u00fc' and 'm\u00fc'" in manifest.notes


def test_a_table_under_another_name_or_with_other_columns_is_named_with_the_step(folder):
    (folder / "labels.csv").unlink(missing_ok=True)
    (folder / "mine.csv").write_text("filename,pid,Mass\na/1.png,1,1\n")
    with pytest.raises(InputError, match="but mine.csv: name the table with --etl.columns.label_file"):
        read(folder, Columns())
    with pytest.raises(InputError, match="lacks the columns .* name the columns with --etl.columns.image"):
        read(folder, Columns(label_file="mine.csv"))


def test_a_name_below_a_link_is_found(folder):
    (folder / "current").symlink_to(folder / "a")
    (folder / "labels.csv").write_text("image,patient,Mass\ncurrent/1.png,1,1\nc/ü.jpg,2,0\n")
    manifest = read(folder, Columns(label_file="c/../labels.csv"))
    assert ".csv, not listed in labels.csv" not in manifest.left_out
    assert (manifest.absent, manifest.images.image_id.tolist()) == (0, ["current/1.png", "c/ü.jpg"])


def test_a_patient_is_the_same_with_zeros_and_decimals(folder):
    rows = "a/1.png,3,1\nb/2.png,3.0,1\nc/unlisted.PNG,003,0\n"
    (folder / "labels.csv").write_text("image,patient,Mass\n" + rows)
    assert set(read(folder, Columns()).images.patient_id) == {"3"}


def test_follow_ups_that_are_no_numbers_are_counted(folder):
    (folder / "labels.csv").write_text("image,patient,Mass,when\na/1.png,3,1,2012-01-01\nc/unlisted.PNG,3,0,1\n")
    assert read(folder, Columns(follow_up="when")).not_understood == {"follow_up": {"2012-01-01": 1}}


def test_lines_of_a_list_that_name_no_image_are_counted(folder):
    (folder / "out.txt").write_text("a/1.png, blurred\n1.png\nb/x, y.tif\ngone.png\n")
    manifest = read(folder, exclude=[str(folder / "out.txt")])
    assert manifest.notes[2:] == ["1 of 4 lines of out.txt named no image, such as '1.png'"]
    assert manifest.images.reason.notna().sum() == 2


@pytest.mark.parametrize("cell", ["1.23457E+11", "1,23457E+11", "2e+12", "1.23457E11"])
@pytest.mark.parametrize("column", ["person", "file"])
def test_numbers_that_a_spreadsheet_has_rounded_are_refused(folder, cell, column):
    old = {"person": ",7,60", "file": "gone.png"}[column]
    (folder / "labels.csv").write_text(TABLE.replace(old, old.replace("7" if column == "person" else old, f'"{cell}"')))
    what = {"person": "patient", "file": "image"}[column]
    with pytest.raises(InputError, match=rf"the {what} is '{cell[0]}.*rounded.*export the table again"):
        read(folder)


def test_rows_that_repeat_an_image_and_say_the_same_are_read_once(folder):
    # Tables of the RSNA Pneumonia Challenge have a row per box.
    (folder / "labels.csv").write_text("image,patient,x,Target\na/1.png,1,10,1\na/1.png,1,90,1\nc/unlisted.PNG,2,,0\n")
    manifest = read(folder, Columns(findings=["Target"]))
    assert (manifest.listed, len(manifest.images)) == (2, 2)
    assert manifest.notes[0] == "1 row of the table repeats an earlier row and was read once"
    (folder / "labels.csv").write_text("image,patient,x,Target\na/1.png,1,10,1\na/1.png,1,90,0\n")
    with pytest.raises(
        InputError,
        match=r"names 1 image twice, such as a/1.png in lines 2 and 3, which differ in 'Target' \('1' and '0'\): ",
    ):
        read(folder, Columns(findings=["Target"]))


def test_files_of_another_ending_are_said(tmp_path):
    for name in ("x/view.png", "y/view.png", "z/view.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    names = ["root/x/view.dcm", "root/y/view.dcm", "root/w/view.dcm"]
    said = (
        r"2 absent images have a file of another ending, such as 'x/view.png' for 'root/x/view.dcm': write the endings"
    )
    (tmp_path / "labels.csv").write_text("\n".join(["image,patient,Mass", *(f"{name},{name},1" for name in names)]))
    with pytest.raises(InputError, match=f"found: 4 files, such as 'x/view.png'; {said}"):
        read(tmp_path, Columns())
    (tmp_path / "labels.csv").write_text("image,patient,Mass\nz/view.jpg,1,1\nx/view.dcm,2,1\nw/view.dcm,3,1\n")
    notes = read(tmp_path, Columns()).notes
    assert [note.partition(":")[0] for note in notes if "ending" in note] == [
        "1 absent image has a file of another ending, such as 'x/view.png' for 'x/view.dcm'"
    ]
    (tmp_path / "labels.csv").write_text("image,patient,Mass\nx/view,1,1\nw/view,3,1\n")
    assert not any("another ending" in note for note in read(tmp_path, Columns()).notes if "spelling" not in note)


def test_rows_of_several_readers_may_be_joined(folder):
    (folder / "labels.csv").write_text("image,patient,reader,Mass\na/1.png,1,R1,1\na/1.png,01,R2,0\na/1.png,1,R3,1\n")
    with pytest.raises(InputError, match=r"differ in 'Mass' \('1' and '0'\): .*join the rows of several readers"):
        read(folder, Columns(findings=["Mass"]))


def test_of_several_tables_one_is_read(folder):
    (folder / "labels.csv").unlink()
    (folder / "meta").mkdir()
    (folder / "meta" / "labels.csv").write_text("image,patient,Mass\na/1.png,1,1\n")
    with pytest.raises(InputError, match="but meta/labels.csv: name .*label_file, if it is comma-separated: check"):
        read(folder, Columns())
    assert read(folder, Columns(label_file="meta/labels.csv")).listed == 1
    for name in ("train.csv", "test.csv", "val.csv"):
        (folder / name).touch()
    with pytest.raises(
        InputError, match=r"but meta/labels.csv, test.csv, train.csv and 1 more: .*, join them with a col"
    ):
        read(folder, Columns())


def test_a_message_about_images_that_are_absent_shows_a_listed_name_and_a_found_one(folder):
    (folder / "labels.csv").write_text("image,patient,Mass\nfilm_1.png,1,1\n")
    with pytest.raises(InputError, match=r"listed is 'film_1.png', found: 6 files, such as 'a/1.png'"):
        read(folder, Columns())


def test_a_cell_that_is_no_label_says_how_to_name_the_findings(folder):
    (folder / "labels.csv").write_text("image,patient,study,Labels\na/1.png,1,5000,normal\n")
    with pytest.raises(InputError, match=r"study is '5000'.*so name yours with --etl.columns.findings"):
        read(folder, Columns())
    with pytest.raises(InputError, match=r"Labels is 'normal'.*make a column of these numbers for each finding"):
        read(folder, Columns(findings=["Labels"]))


def test_no_finding_beside_a_finding_is_counted(folder):
    (folder / "labels.csv").write_text(with_column("No Finding", ["0", "1.0", "1", "1"]))
    manifest = read(folder, Columns(image="file", patient="person", findings=["Mass", "Odd"]))
    assert manifest.not_understood["labels"] == {"No Finding beside Odd": 1}


@pytest.mark.parametrize("columns", ["Normal", "Healthy,No Finding", "Support Devices,No Finding"])
def test_a_table_may_have_no_other_finding_than_that_there_is_none(folder, columns):
    cells = ",1" * len(columns.split(","))
    (folder / "labels.csv").write_text(f"image,patient,{columns}\na/1.png,1{cells}\nc/ü.jpg,2{cells}\n")
    assert read(folder, Columns()).findings == columns.split(",")


@pytest.mark.parametrize(("word", "cell"), [("No Finding", "1.00"), ("Kein Befund", "1"), ("Without findings", "1.0")])
def test_no_finding_in_other_words_beside_a_finding_is_counted(folder, word, cell):
    (folder / "labels.csv").write_text(f"image,patient,Mass,{word}\na/1.png,1,1,{cell}\nc/ü.jpg,2,0,1\n")
    assert read(folder, Columns()).not_understood == {"labels": {f"{word} beside Mass": 1}}


@pytest.mark.parametrize(
    ("one", "other"),
    [("P0", "P0\u200b"), ("P 1", "P\u00a01"), ("P1", "P1\u200e"), ("P-1", "P\u20111"), ("P1", "\uff30\uff11")]
    + [("1", "\uff11"), ("1", "'1"), ("1", '="1"'), ("0017", '="17"'), ("Müller", "Mu\u0308ller")],
)
def test_a_patient_is_the_same_with_invisible_and_look_alike_characters(folder, one, other):
    (folder / "labels.csv").write_text(f"image,patient,Mass\na/1.png,{one},1\nc/ü.jpg,{other},0\n")
    assert read(folder, Columns()).images.patient_id.nunique() == 1


@pytest.mark.parametrize(
    "word",
    ["ANONYMISED", "Anonymous^Patient", "removed", "de-identified", "no id", "xxxx"]
    + ["unbekannt", "desconocido", "anónimo", "k.A.", "nil", r"\N", "-1", "-1.0", "-999"],
)
def test_a_word_for_nobody_is_no_patient(folder, word):
    (folder / "labels.csv").write_text(f"image,patient,Mass\na/1.png,1,1\nc/ü.jpg,{word},0\n")
    with pytest.raises(
        InputError, match=re.escape(f"labels.csv line 3: no patient ({word!r})") + ".*columns.patient ''"
    ):
        read(folder, Columns())


@pytest.mark.parametrize("patients", [("-1", "-2"), ("-1", "-1"), ("-17", "3")])
def test_negative_numbers_may_be_patients(folder, patients):
    (folder / "labels.csv").write_text(f"image,patient,Mass\na/1.png,{patients[0]},1\nc/ü.jpg,{patients[1]},0\n")
    assert read(folder, Columns()).images.patient_id.tolist() == list(patients)


def test_a_patient_with_very_many_images_is_said(folder):
    rows = [f"{number}.png,{'ZZ' if number % 2 else number},1" for number in range(40)]
    for number in range(40):
        (folder / f"{number}.png").touch()
    (folder / "labels.csv").write_text("\n".join(["image,patient,Mass", *rows]))
    assert "the patient 'ZZ' has 20 of 40 images: is it one person?" in read(folder, Columns()).notes
    (folder / "labels.csv").write_text("\n".join(["image,patient,Mass", *rows[:18]]))
    assert not any("one person" in note for note in read(folder, Columns()).notes)


@pytest.mark.parametrize("row", ["a/1.png,1,1.0", "a/1.png,01,1", "./a/1.png,1,1", ".\\a\\1.png,1,1.00"])
def test_a_row_that_says_the_same_in_another_spelling_is_read_once(folder, row):
    (folder / "labels.csv").write_text(f"image,patient,Mass\na/1.png,1,1\nc/ü.jpg,2,\nc/ü.jpg,2,nan\n{row}\n")
    manifest = read(folder, Columns())
    assert manifest.listed == 2 and "2 rows of the table repeat an earlier row and were read once" in manifest.notes


def test_a_name_that_a_spreadsheet_wrote_as_text_is_found(folder):
    (folder / "labels.csv").write_text('image,patient,Mass\n="a/1.png",1,1\nc/ü.jpg,2,0\n')
    assert read(folder, Columns()).absent == 0


@pytest.mark.parametrize("name", ["/local/x.csv", "~/x.csv"])
def test_a_table_of_this_machine_is_no_part_of_a_store(name):
    with pytest.raises(InputError, match="etl.columns.label_file is .*below the source: copy it there"):
        table_path(UPath("memory://bucket/x"), name)


@pytest.mark.parametrize("name", ["", "s3://bucket/labels.csv"])
def test_a_table_elsewhere_is_refused_with_the_step(folder, name):
    with pytest.raises(InputError, match="etl.columns.label_file is .*expected the name of a table below the source"):
        read(folder, Columns(label_file=name))


@pytest.mark.parametrize(
    ("lines", "left_out", "note"),
    [
        ("0001 PA.png\n", ["0001 PA.png"], None),
        ("0001 blurred\n", ["0001"], None),
        ("0001,like 2.png\n", ["0001"], None),
        ("0001,2.png\n", ["0001"], "of 1 line of out.txt with several images, such as '0001,2.png', only"),
        ("0001 2.png\n", ["0001"], "of 1 line of out.txt with several images, such as '0001 2.png', only"),
    ],
)
def test_a_line_of_a_list_leaves_out_the_image_that_it_names_first(folder, lines, left_out, note):
    names = ["0001", "0001 PA.png", "2.png"]
    for name in names:
        (folder / name).touch()
    (folder / "labels.csv").write_text("\n".join(["image,patient,Mass", *(f"{name},{name},1" for name in names)]))
    (folder / "out.txt").write_text(lines)
    manifest = read(folder, Columns(), exclude=[str(folder / "out.txt")])
    assert manifest.images.image_id[manifest.images.reason.notna()].tolist() == left_out
    assert [one for one in manifest.notes if "several" in one][:1] == [
        one for one in manifest.notes if note and note in one
    ]
    assert bool(note) == any("several" in one for one in manifest.notes)


@pytest.mark.parametrize("kind", ["nii.gz", "npy", "npz", "zip", "tar", "pdf", "mha"])
def test_a_volume_or_an_archive_that_a_table_names_is_quarantined_with_what_it_is(tmp_path, kind):
    content, name = OTHERS[kind]
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / f"1.{kind}").write_bytes(content)
    (tmp_path / "labels.csv").write_text(f"image,patient,Mass\n1.{kind},1,1\n")
    images = read_manifest(tmp_path, Etl(format="csv")).images
    assert images.path.tolist() == [str(tmp_path / "scans" / f"1.{kind}")]
    with pytest.raises(BadImage, match=name):
        load_squares((tmp_path / "scans" / f"1.{kind}").read_bytes, Etl(), channels=1)
