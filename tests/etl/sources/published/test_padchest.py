"""The manifest of PadChest's table: lists of labels in a cell, who labelled, and what is left out."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import Columns, Labels
from tests.etl.sources.published.published import label_files, labels_of, read, rows_of, touch, write_table

NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
HEADER = ["", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM"]
HEADER += ["Projection", "Report", "MethodLabel", "Labels", "labelCUIS"]
FEW = Labels(min_images=1)


def row(number: int, labels: str, **cells: str) -> list[str]:
    usual = {"ImageID": f"f{number}.png", "ImageDir": "0", "StudyDate_DICOM": "20140915", "StudyID": f"s{number}"}
    usual |= {"PatientID": f"p{number}", "PatientBirth": "1930.0", "PatientSex_DICOM": "F", "Projection": "PA"}
    usual |= {"Report": "sin hallazg", "MethodLabel": "Physician", "Labels": labels, "labelCUIS": "['C1'\n 'C2']"}
    return [str(number), *((usual | cells)[name] for name in HEADER[1:])]


ROWS = [
    row(0, "['normal']"),
    row(1, "['nodule', ' pleural effusion', '']", MethodLabel="RNN_model", PatientSex_DICOM="M", Projection="L"),
    row(2, "['pleural effusion', 'pleural effusion']", PatientID="p0", StudyDate_DICOM="20130101"),
    row(3, "['unchanged', 'nodule']", PatientBirth="", PatientSex_DICOM="O", Projection="COSTAL"),
    row(4, "['exclude']"),
    row(5, "['suboptimal study', 'nodule']"),
    row(6, "nan"),
    row(7, "['normal', 'goiter']", Projection="AP_horizontal"),
    row(8, "['nodule']", Projection="EXCLUDE"),
    row(9, "['']"),
]


def make(folder: Path, rows: list[list[str]] = ROWS) -> Path:
    write_table(folder / NAME, HEADER, rows)
    touch(folder, *(f"0/f{number}.png" for number in range(10)))
    return folder


def test_rows_follow_the_contract(tmp_path):
    (make(tmp_path) / "0" / "f9.png").unlink()
    manifest = read(tmp_path, "padchest", labels=FEW)
    assert manifest.findings == ["goiter", "nodule", "pleural effusion"]
    assert (manifest.listed, manifest.absent) == (10, 1)
    rows = rows_of(manifest)
    assert labels_of(manifest, "f0.png") == {"goiter": 0, "nodule": 0, "pleural effusion": 0}
    assert labels_of(manifest, "f1.png") == {"goiter": 0, "nodule": 1, "pleural effusion": 1}
    first = rows.loc["f0.png"]
    assert (first.patient_id, first.follow_up, first.age_years, first.sex, first["view"]) == ("p0", 1, 84, "F", "PA")
    assert (rows.follow_up["f2.png"], rows.age_years["f2.png"]) == (0, 83)
    assert rows["view"].to_dict() | {"f3.png": None} == {
        **dict.fromkeys(["f0.png", "f2.png", "f4.png", "f5.png", "f6.png"], "PA"),
        **{"f1.png": "LATERAL", "f3.png": None, "f7.png": "AP", "f8.png": None},
    }
    assert rows.path["f0.png"] == str(tmp_path / "0" / "f0.png")
    assert manifest.not_understood == {"labels": {"normal beside goiter": 1}}
    assert rows.split[rows.patient_id == "p0"].nunique() == 1


def test_a_label_that_is_not_named_is_unknown_where_the_report_is_unchanged_or_has_no_label(tmp_path):
    manifest = read(make(tmp_path), "padchest", labels=FEW)
    np.testing.assert_equal(labels_of(manifest, "f3.png"), {"goiter": np.nan, "nodule": 1, "pleural effusion": np.nan})
    for image in ("f6.png", "f9.png"):
        assert np.isnan(rows_of(manifest).findings[image]).all()
    assert "2 listed images have no label, so all are unknown" in manifest.notes
    assert "1 listed image is called 'unchanged': labels that are not named there are unknown" in manifest.notes


def test_a_broader_label_is_unknown_where_the_report_has_a_narrower_one(tmp_path):
    rows = [row(0, "['laminar atelectasis', 'surgery neck']"), row(1, "['atelectasis', 'laminar atelectasis']")]
    rows += [row(2, "['surgery']"), row(3, "['normal']"), row(4, "['laminar atelectasis', 'unchanged']")]
    manifest = read(make(tmp_path, rows), "padchest", labels=FEW)
    assert manifest.findings == ["atelectasis", "laminar atelectasis", "surgery", "surgery neck"]
    np.testing.assert_equal(list(labels_of(manifest, "f0.png").values()), [np.nan, 1, np.nan, 1])
    assert list(labels_of(manifest, "f1.png").values()) == [1, 1, 0, 0]
    assert list(labels_of(manifest, "f2.png").values()) == [0, 0, 1, 0]
    assert list(labels_of(manifest, "f3.png").values()) == [0, 0, 0, 0]
    assert "2 labels are unknown, because the report has a narrower one, such as 'laminar atelectasis' without" in str(
        manifest.notes
    )


def test_images_that_the_authors_exclude_are_left_out_with_the_reason(tmp_path):
    reasons = rows_of(read(make(tmp_path), "padchest", labels=FEW)).reason.dropna().to_dict()
    assert reasons == {
        "f4.png": "labelled 'exclude', in etl.labels.leave_out",
        "f5.png": "labelled 'suboptimal study', in etl.labels.leave_out",
        "f8.png": "projection EXCLUDE",
    }
    chosen = read(tmp_path, "padchest", labels=Labels(min_images=1, leave_out=[]))
    assert rows_of(chosen).reason.dropna().index.tolist() == ["f8.png"]
    assert "suboptimal study" in chosen.findings


def test_labels_of_physicians_alone(tmp_path):
    manifest = read(make(tmp_path), "padchest", labels=Labels(labeller="physician", min_images=1))
    assert rows_of(manifest).reason["f1.png"] == "labelled by RNN_model, not as etl.labels.labeller says"
    assert "nodule" in manifest.findings
    write_table(tmp_path / NAME, HEADER, ROWS[:1])
    with pytest.raises(InputError, match=r"no image has 'RNN_model' in the column 'MethodLabel', found 'Physician'"):
        read(tmp_path, "padchest", labels=Labels(labeller="rnn"))


def test_rare_labels_are_no_findings_and_are_counted(tmp_path):
    manifest = read(make(tmp_path), "padchest", labels=Labels(min_images=2))
    assert manifest.findings == ["nodule", "pleural effusion"]
    assert any("1 label of fewer than 2 images (in 1 image), such as 'goiter'" in note for note in manifest.notes)
    named = read(tmp_path, "padchest", columns=Columns(findings=["goiter"]))
    assert named.findings == ["goiter"]
    assert "2 labels are not in etl.columns.findings" in named.notes


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"no label has 100 images, the most frequent one is 'nodule' with 2: lower etl.labels.min_images"),
        ({"columns": Columns(findings=["Nodule"])}, r"etl.columns.findings names 'Nodule', which no image .* 'nodule'"),
    ],
)
def test_labels_that_do_not_fit_the_settings(tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        read(make(tmp_path), "padchest", **settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [*rows, row(1, "['goiter']", MethodLabel="RNN_model")], r"names 1 image twice, such as f1.png"),
        (lambda rows: [row(0, "['normal'")], r"line 3: Labels is \['normal', expected a list such as"),
        (lambda rows: [row(0, "normal")], r"Labels is normal, expected a list"),
        (lambda rows: [row(0, "[1]")], r"Labels is \[1\], expected a list"),
        (lambda rows: [row(0, "['nodule']", PatientID="")], r"no patient"),
        (lambda rows: [row(99, "['nodule']")], r"none of the 1 images of PADCHEST"),
        (lambda rows: [row(0, "['normal']")], r"no image has a finding"),
    ],
)
def test_a_faulty_table_ends_with_a_message(tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        read(make(tmp_path, change(ROWS)), "padchest", labels=FEW)


def test_rows_that_repeat_are_read_once(tmp_path):
    repeated = [*ROWS, ["10", *ROWS[1][1:]]]
    manifest = read(make(tmp_path, repeated), "padchest", labels=FEW)
    assert manifest.listed == 10
    assert f"{NAME}: 1 row repeats an earlier row and was read once" in manifest.notes


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_table_that_is_cut_is_refused(tmp_path, share):
    content = (make(tmp_path) / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[: content.rindex(b"\n", 0, int(share * len(content))) + 20])
    with pytest.raises(InputError, match=r"truncated|no other one closes|expected a list"):
        read(tmp_path, "padchest", labels=FEW)


def test_a_compressed_table_is_read_or_refused_if_it_is_damaged(tmp_path):
    plain = read(make(tmp_path), "padchest", labels=FEW)
    packed = gzip.compress((tmp_path / NAME).read_bytes())
    (tmp_path / NAME).unlink()
    path = tmp_path / f"{NAME}.gz"
    path.write_bytes(packed)
    assert rows_of(read(tmp_path, "padchest", labels=FEW)).astype(str).equals(rows_of(plain).astype(str))
    for damaged in (packed[:-30], packed[:40] + b"\xff\xff" + packed[42:], b"no gzip"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="is not a whole gzip file"):
            read(tmp_path, "padchest", labels=FEW)


def test_a_table_of_another_collection_is_refused(tmp_path):
    write_table(tmp_path / NAME, ["image_id", "class_name", "rad_id"], [["f0", "ILD", "R1"]])
    with pytest.raises(InputError, match=r"lacks the columns \['ImageID', 'Labels', 'PatientID'\]"):
        read(tmp_path, "padchest")
    (tmp_path / NAME).rename(tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"must hold one PADCHEST\*.csv .* found none: check --etl.source"):
        read(tmp_path, "padchest")


PLAN = """
import resource, sys
from upath import UPath
from conf.settings import Etl
from etl.sources.read import read_manifest
manifest = read_manifest(UPath(sys.argv[1]), Etl(format="padchest"))
print(manifest.listed, len(manifest.images), len(manifest.findings))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_real_table_is_planned_within_2_gb(tmp_path):
    shutil.copy(label_files() / f"{NAME}.gz", tmp_path)
    touch(tmp_path, "0/20536686640136348236148679891455886468_k6ga29.png")
    touch(tmp_path, "0/135803415504923515076821959678074435083_fzis7d.png")
    done = subprocess.run([sys.executable, "-c", PLAN, str(tmp_path)], capture_output=True, text=True, check=True)
    counts, peak_kb = done.stdout.splitlines()
    assert counts == "160861 2 137"
    assert int(peak_kb) < 2_000_000
