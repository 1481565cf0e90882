"""The manifest of MIMIC-CXR-JPG, on a toy folder in the documented layout: the tables need a permission."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import Etl, Labels
from etl.sources.published.chexpert import CHEXPERT_FINDINGS
from tests.etl.sources.published.published import labels_of, read, rows_of, touch, write_table

FILMS = ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns"]
FILMS += ["StudyDate", "StudyTime"]
LABELS = ["subject_id", "study_id", *sorted([*CHEXPERT_FINDINGS, "No Finding"])]
ROWS = [
    ["d1", "10000032", "50000002", "CHEST (PA AND LAT)", "PA", "3056", "2544", "21800506", "213014.531"],
    ["d2", "10000032", "50000002", "CHEST (PA AND LAT)", "LATERAL", "3056", "2544", "21800506", "213014.531"],
    ["d3", "10000032", "50000001", "CHEST (PORTABLE AP)", "AP", "2705", "2539", "21800506", "91500.5"],
    ["d4", "11000011", "50000003", "CHEST (PORTABLE AP)", "SWIMMERS", "2705", "2539", "21800101", "91500.5"],
    ["d5", "19000009", "50000009", "", "", "2705", "2539", "21800101", "91500.5"],
]


def labels(subject: str, study: str, **cells: str) -> list[str]:
    return [subject, study, *(cells.get(name.replace(" ", "_"), "") for name in LABELS[2:])]


STUDIES = [
    labels("10000032", "50000002", Edema="1.0", Pneumonia="-1.0", Fracture="0.0"),
    labels("10000032", "50000001", No_Finding="1.0", Support_Devices="1.0"),
    labels("11000011", "50000003", No_Finding="1.0", Edema="1.0"),
]
SPLIT = [["d1", "50000002", "10000032", "train"], ["d2", "50000002", "10000032", "train"]]
SPLIT += [["d3", "50000001", "10000032", "train"], ["d4", "50000003", "11000011", "test"]]


def name(kind: str) -> str:
    return f"mimic-cxr-2.0.0-{kind}.csv"


def make(folder: Path, films=ROWS, studies=STUDIES, split=SPLIT, header=LABELS) -> Path:
    write_table(folder / name("metadata"), FILMS, films)
    write_table(folder / name("chexpert"), header, studies)
    write_table(folder / name("split"), ["dicom_id", "study_id", "subject_id", "split"], split)
    touch(folder, *(f"files/p{row[1][:2]}/p{row[1]}/s{row[2]}/{row[0]}.jpg" for row in ROWS))
    return folder


def image(number: int) -> str:
    row = ROWS[number - 1]
    return f"files/p{row[1][:2]}/p{row[1]}/s{row[2]}/{row[0]}.jpg"


def test_the_films_of_a_study_have_its_labels(tmp_path):
    manifest = read(make(tmp_path), "mimic", val_fraction=0.001)
    assert manifest.findings == list(CHEXPERT_FINDINGS)
    for film in (1, 2):
        found = labels_of(manifest, image(film))
        assert (found["Edema"], found["Fracture"], found["Cardiomegaly"]) == (1, 0, 0)
        assert np.isnan(found["Pneumonia"])
    assert labels_of(read(tmp_path, "mimic", uncertain="one"), image(1))["Pneumonia"] == 1
    assert np.isnan(rows_of(manifest).findings[image(5)]).all()
    assert "1 film is of studies without labels, so all are unknown" in manifest.notes
    assert manifest.not_understood == {"view": {"SWIMMERS": 1}, "labels": {"No Finding beside Edema": 1}}


def test_rows_follow_the_contract(tmp_path):
    rows = rows_of(read(make(tmp_path), "mimic", val_fraction=0.001))
    assert rows["view"].tolist() == ["PA", "LATERAL", "AP", None, None]
    # The study of the morning comes before that of the evening.
    assert rows.follow_up.tolist() == [1, 1, 0, 0, 0]
    assert rows.patient_id.tolist() == [row[1] for row in ROWS]
    assert rows.split.tolist() == ["train", "train", "train", "test", None]
    assert rows.reason[image(5)] == "in no split"
    assert rows.path[image(1)] == str(tmp_path / image(1))
    assert read(tmp_path, "mimic", split="hashed").images.split.notna().all()


def test_compressed_tables_and_the_labels_of_negbio(tmp_path):
    make(tmp_path)
    changed = [labels("10000032", "50000002", Edema="0.0")]
    write_table(tmp_path / name("negbio"), LABELS, changed)
    for kind in ("metadata", "chexpert", "negbio", "split"):
        path = tmp_path / name(kind)
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert labels_of(read(tmp_path, "mimic"), image(1))["Edema"] == 1
    assert labels_of(read(tmp_path, "mimic", labels=Labels(labeller="negbio")), image(1))["Edema"] == 0
    with pytest.raises(
        InputError, match="etl.labels.labeller is 'rnn', expected with --etl.format mimic chexpert or neg"
    ):
        Etl(format="mimic", labels=Labels(labeller="rnn"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"studies": [labels("11000011", "50000002")]}, "study 50000002 is of patient 11000011 in .*chexpert.csv"),
        (
            {"studies": [*STUDIES, labels("11000011", "50000003", Edema="0")]},
            "twice, such as 50000003 in lines 4 and 5",
        ),
        ({"studies": [labels("11000011", "50000003", Edema="yes")]}, "chexpert.csv line 2: Edema is 'yes', expected 1"),
        ({"header": [f"{column}s" for column in LABELS]}, r"lacks the columns \['Atelectasis', "),
        ({"split": [*SPLIT[:1], ["d3", "50000001", "10000032", "test"]]}, "1 patient is in more than one split"),
        ({"films": [["d1", "10000032", "", *ROWS[0][3:]]]}, "metadata.csv line 2: study_id is empty, expected one"),
        ({"split": [["x", "1", "2", "train"]]}, "has the split of none of the 5 films, such as d1"),
        ({"split": [["d1", "50000002", "10000032", "dev set A"]]}, "holds splits that are not known: 1 'dev set A'"),
        ({"films": [*ROWS, [*ROWS[0][:4], "AP", *ROWS[0][5:]]]}, "names 1 image twice, such as d1 in lines 2 and 7"),
        ({"films": [["d9", *ROWS[0][1:]]], "split": [["d9", "1", "2", "train"]]}, "none of the 1 films of mimic-cxr"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        read(make(tmp_path, **changes), "mimic")


def test_a_table_that_is_missing_or_there_twice_is_named(tmp_path):
    make(tmp_path)
    (tmp_path / name("negbio")).touch()
    (tmp_path / f"{name('split')}.gz").touch()
    with pytest.raises(
        InputError, match=r"must hold one mimic-cxr-2\.\*-split.csv .* found .*split.csv, .*split.csv.gz"
    ):
        read(tmp_path, "mimic")
    (tmp_path / name("metadata")).unlink()
    with pytest.raises(
        InputError, match=r"metadata.csv.gz \(MIMIC-CXR-JPG's metadata\).* found none: check --etl.source"
    ):
        read(tmp_path, "mimic")
