import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from conf.errors import InputError
from conf.settings import Columns, Dicom, Etl
from conf.workspace import Workspace
from etl.contract.images.decode import decode_grey
from etl.sources.dicom_files import HEAD_BYTES
from etl.sources.pseudonyms import hide
from etl.sources.read import read_manifest
from etl.writing.publish import publish
from tests.conftest import InlineWorkers
from tests.etl.tables import ANY, rows_of

SALT = "not a secret, as it stands here"
SETTINGS = {"format": "dicom", "sizes_px": [32], "val_fraction": 0.3, "test_fraction": 0.3, "quality": ANY}


def write_film(path: Path, patient: str, day: int, value: int, **tags) -> pydicom.Dataset:
    """A 12-bit film of 40x40 pixels of noise."""
    film = pydicom.Dataset()
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    film.SOPInstanceUID = generate_uid()
    film.PatientID, film.PatientName = patient, f"Name^of^{patient}"
    film.StudyDate, film.StudyTime = f"202001{day:02d}", "120000"
    film.PatientAge, film.PatientSex, film.ViewPosition = "061Y", "F", "AP"
    film.Rows = film.Columns = 40
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.WindowCenter, film.WindowWidth = 2048, 4096
    film.PixelData = np.random.default_rng(value).integers(0, 4096, (40, 40), dtype=np.uint16).tobytes()
    for name, content in tags.items():
        setattr(film, name, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)
    return film


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """20 patients, some with two studies, in folders named after them."""
    monkeypatch.setenv("CHEXSCALE_SALT", SALT)
    source = tmp_path / "archive"
    for patient in range(20):
        for study in range(1 + patient % 2):
            write_film(
                source / f"Patient {patient}" / f"IM{study}", f"HOSP-{patient}", 20 - study, 100 * patient + study
            )
    return source


def run(folder: Path, workspace: Workspace, **changes):
    settings = Etl(**{**SETTINGS, **changes})
    manifest = read_manifest(folder, settings, InlineWorkers())
    return manifest, publish(workspace.tables(""), settings, str(folder), manifest, InlineWorkers())


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


def test_a_folder_without_a_table_gives_hashed_patients_and_unknown_findings(folder, workspace):
    manifest, outcome = run(folder, workspace)
    rows = rows_of(workspace, outcome.card)
    assert (manifest.listed, manifest.absent, sum(manifest.left_out.values()), len(rows)) == (30, 0, 0, 30)
    # The later film was written first: IM0 is from the 20th, IM1 from the 19th.
    for follow_up, name in enumerate(("IM1", "IM0")):
        row = rows.loc[hide(pydicom.dcmread(folder / "Patient 1" / name).SOPInstanceUID, SALT)]
        assert (row.patient_id, row.follow_up) == (hide("HOSP-1", SALT), follow_up)
    assert rows.age_years.eq(61).all()
    assert rows["view"].eq("AP").all()
    assert np.isnan(np.stack(rows.findings)).all()
    assert outcome.card.known["train"]["Mass"] == 0


def test_no_identity_is_in_the_tables_or_the_card(folder, workspace):
    write_film(folder / "Patient 3" / "report", "HOSP-3", 7, 5, PixelData=None)
    _, outcome = run(folder, workspace)
    assert outcome.quarantine.path.isna().all()
    assert len(outcome.quarantine) == 1
    stored = rows_of(workspace, outcome.card).drop(columns="image_32").to_csv() + outcome.quarantine.to_csv()
    logs = "".join(path.read_text() for path in workspace.root.rglob("*.json"))
    for identity in ("HOSP", "Patient 3", "Name^of", "2020010", "IM0", SALT):
        assert identity not in stored + outcome.card.to_json().replace(str(folder), "") + logs, identity


def test_a_table_names_findings_by_path_or_by_instance(folder, workspace):
    films = sorted(path for path in folder.rglob("IM*"))
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "Nodule", "Mass"])
        for number, path in enumerate(films[:-2]):
            uid = pydicom.dcmread(path).SOPInstanceUID
            table.writerow([uid if number % 2 else path.relative_to(folder), (number % 3 == 0 and 1) or 0, ""])
    manifest, outcome = run(folder, workspace, columns=Columns(patient=""))
    assert outcome.card.findings == ["Nodule", "Mass"]
    assert (len(outcome.rows), sum(manifest.left_out.values())) == (28, 2)
    expected = {
        hide(pydicom.dcmread(path).SOPInstanceUID, SALT): float(number % 3 == 0)
        for number, path in enumerate(films[:-2])
    }
    assert dict(zip(outcome.rows.image_id, np.stack(outcome.rows.findings)[:, 0], strict=True)) == expected
    assert np.isnan(np.stack(outcome.rows.findings)[:, 1]).all()


def test_files_that_are_no_films_are_quarantined_or_counted(folder, workspace):
    (folder / "README").write_text("Exported on a Monday.")
    first = write_film(folder / "loop" / "multi", "HOSP-1", 3, 5, NumberOfFrames=2)
    assert first.NumberOfFrames == 2
    path = folder / "Patient 2" / "IM0"
    (folder / "again.dcm").write_bytes(path.read_bytes())
    (folder / "cut.dcm").write_bytes(path.read_bytes()[:200])
    manifest, outcome = run(folder, workspace)
    assert (manifest.listed, sum(manifest.left_out.values())) == (33, 1)
    reasons = sorted(outcome.quarantine.reason)
    assert len(reasons) == 3
    assert any("same SOP Instance UID" in reason for reason in reasons)
    assert any("frames" in reason for reason in reasons)
    assert manifest.listed == len(outcome.rows) + len(outcome.quarantine) + manifest.absent


def test_a_film_that_begins_as_a_tiff_is_a_film(folder):
    path = folder / "Patient 2" / "IM0"
    content = path.read_bytes()
    path.write_bytes(b"II*\x00" + content[4:])
    assert (decode_grey(path.read_bytes()) == decode_grey(content)).all()


def test_a_second_run_commits_nothing_and_another_salt_is_refused(folder, workspace, monkeypatch):
    _, first = run(folder, workspace)
    _, again = run(folder, workspace)
    assert set(again.counts.values()) == {0}
    monkeypatch.setenv("CHEXSCALE_SALT", "another salt of some length")
    manifest = read_manifest(folder, Etl(**SETTINGS), InlineWorkers())
    assert not set(manifest.images.patient_id) & set(first.rows.patient_id)
    with pytest.raises(InputError, match="named with another CHEXSCALE_SALT"):
        run(folder, workspace)


def test_a_table_may_name_the_patients_and_films_that_are_absent(folder, workspace):
    for path in sorted(folder.rglob("IM*")):
        film = pydicom.dcmread(path)
        film.PatientID = ""
        film.save_as(path)
    with pytest.raises(InputError, match="none of the 30 DICOM files .* no PatientID"):
        run(folder, workspace)
    films = sorted(folder.rglob("IM*"))
    lines = [f"{path.relative_to(folder)},{path.parent.name},{40 + n},1" for n, path in enumerate(films)]
    (folder / "labels.csv").write_text("\n".join(["image,patient,age,Mass", *lines, "gone.dcm,Nobody,50,0"]))
    manifest, outcome = run(folder, workspace, columns=Columns(age="age"))
    assert (manifest.listed, manifest.absent, len(outcome.rows)) == (31, 1, 30)
    assert outcome.card.findings == ["Mass"]
    assert set(outcome.rows.patient_id) == {hide(f"Patient {number}", SALT) for number in range(20)}
    assert sorted(outcome.rows.age_years) == list(range(40, 70))


def test_an_unknown_day_leaves_the_other_studies_counted_from_0(folder):
    path = folder / "Patient 1" / "IM1"
    film = pydicom.dcmread(path)
    film.StudyDate = ""
    film.save_as(path)
    images = read_manifest(folder, Etl(**SETTINGS), InlineWorkers()).images.set_index("image_id")
    follow_ups = images.follow_up[images.patient_id == hide("HOSP-1", SALT)]
    assert sorted(follow_ups.dropna()) == [0]
    assert follow_ups.isna().sum() == 1


def test_a_cut_file_named_like_an_instance_is_another_image(folder, workspace):
    film = pydicom.dcmread(folder / "Patient 2" / "IM0")
    (folder / film.SOPInstanceUID).write_bytes((folder / "Patient 2" / "IM0").read_bytes())
    manifest, outcome = run(folder, workspace)
    assert manifest.images.image_id.is_unique
    assert len(outcome.rows) + len(outcome.quarantine) == 31


@pytest.mark.parametrize("salt", [None, "", "too short"])
def test_without_a_salt_nothing_is_read(folder, monkeypatch, salt):
    monkeypatch.delenv("CHEXSCALE_SALT") if salt is None else monkeypatch.setenv("CHEXSCALE_SALT", salt)
    with pytest.raises(InputError, match="CHEXSCALE_SALT"):
        read_manifest(folder, Etl(**SETTINGS), InlineWorkers())


def test_faults_of_the_table_and_a_folder_without_dicom(folder, tmp_path):
    (folder / "labels.csv").write_text("image,Mass\nPatient 2/IM0,1\nPatient 2/IM0,0\n")
    with pytest.raises(
        InputError,
        match=r"labels.csv names 1 image twice, such as Patient 2/IM0 in lines 2 and 3, which differ in 'Mass': keep",
    ):
        read_manifest(folder, Etl(**SETTINGS), InlineWorkers())
    (folder / "labels.csv").write_text("image,Mass\nPatient 2/IM0,2\n")
    with pytest.raises(InputError, match=r"labels.csv line 2: Mass is '2'"):
        read_manifest(folder, Etl(**SETTINGS), InlineWorkers())
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="none of the 1 files below .* is DICOM"):
        read_manifest(tmp_path / "empty", Etl(**SETTINGS), InlineWorkers())


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, "modality CT: not in etl.dicom.modalities (CR, DX, RG)"),
        ({"Modality": "Smith^John"}, "modality unknown: not in"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for processing: a raw image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, "for processing: a raw image"),
        ({"BodyPartExamined": "HAND"}, "body part HAND: not the chest"),
        ({"BodyPartExamined": "L SPINE"}, "body part LSPINE: not the chest"),
        ({"BurnedInAnnotation": "YES"}, "burned-in annotation: the pixels may show a name"),
        ({"Modality": "DX", "BodyPartExamined": "CHEST", "BurnedInAnnotation": "NO"}, None),
        ({"Modality": "cr", "BodyPartExamined": "TORAX AP"}, None),
        ({"Modality": "", "BodyPartExamined": "PORT"}, None),
        ({"BurnedInAnnotation": "PERHAPS", "PresentationIntentType": "RAW"}, None),
    ],
)
def test_what_is_no_chest_film_for_reading_has_a_reason_of_its_own(folder, tags, reason):
    write_film(folder / "odd", "HOSP-99", 3, 9999, **tags)
    manifest = read_manifest(folder, Etl(**SETTINGS), InlineWorkers())
    reasons = manifest.images.reason.dropna().tolist()
    assert len(manifest.images) == manifest.listed == 31
    assert (reasons == []) if reason is None else (len(reasons) == 1 and reasons[0].startswith(reason))
    # A file of another kind is not bad, so it does not count towards the share of bad images.
    assert not manifest.images.looked_at.any()
    strange = {what: manifest.not_understood.get(what) for what in ("burned-in annotation", "presentation intent")}
    assert strange == dict.fromkeys(strange, {"": 1} if tags.get("BurnedInAnnotation") == "PERHAPS" else None)
    assert manifest.not_understood.get("body part") == ({"": 1} if tags.get("BodyPartExamined") == "PORT" else None)


def test_settings_choose_modalities_and_allow_burned_in_annotations(folder):
    write_film(folder / "odd", "HOSP-99", 3, 9999, Modality="OT", BurnedInAnnotation="YES")
    wanted = Dicom(modalities=["OT"], burned_in=True)
    assert read_manifest(folder, Etl(**SETTINGS, dicom=wanted), InlineWorkers()).images.reason.isna().all()


def test_a_table_may_name_files_without_folder_and_ending(folder):
    # As the RSNA Pneumonia Challenge and VinDr-CXR do; files of the latter name no patient.
    write_film(folder / "train" / "abc.dicom", "", 3, 9999)
    (folder / "labels.csv").write_text("name,Target\nabc,1\nabc,1\ngone,0\n")
    columns = Columns(image="name", patient="name", findings=["Target"])
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=columns), InlineWorkers())
    assert (len(manifest.images), manifest.listed, manifest.absent) == (1, 2, 1)
    assert manifest.left_out == {"without ending, not listed in labels.csv": 30}
    assert [sentence.split(",")[0].split(" such")[0] for sentence in manifest.notes] == [
        "1 row of the table repeats an earlier row and was read once",
        "1 image was found under another spelling",
    ]


def test_a_listed_file_that_cannot_be_used_does_not_give_its_labels_to_another(folder):
    write_film(folder / "old" / "a" / "bad", "HOSP-99", 3, 9999)
    (folder / "a").mkdir()
    (folder / "a" / "bad").write_bytes((folder / "old" / "a" / "bad").read_bytes()[:300])
    (folder / "a" / "empty.dcm").touch()
    (folder / "labels.csv").write_text(
        "image,patient,Mass\na/bad,99,1\na/empty.dcm,98,1\nPatient 1/IM0,97,1\ngone,9,0\n"
    )
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers())
    assert len(manifest.images) == 3 and (manifest.listed, manifest.absent) == (4, 1)
    bad = manifest.images[manifest.images.reason.notna()]
    assert sorted(reason.partition(":")[0] for reason in bad.reason) == ["no DICOM file", "no SOPInstanceUID"]
    assert len(manifest.images) + sum(manifest.left_out.values()) == 30 + 3


@pytest.mark.parametrize("absent", ["old/Patient 1/IM0", "IM1", "old/patient 1\\im1", "Patient 1/IM0.dcm"])
def test_a_name_that_fits_only_a_file_that_another_row_names_by_its_instance_is_absent(folder, absent):
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in sorted(folder.glob("Patient 1/IM*"))]
    for patient in range(3, 20, 2):
        (folder / f"Patient {patient}" / "IM1").unlink()
    rows = [f"{uids[0]},97,1", f"{uids[1]},97,0", f"{absent},97,1"]
    (folder / "labels.csv").write_text("\n".join(["image,patient,Mass", *rows]))
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers())
    assert (len(manifest.images), manifest.absent, manifest.listed) == (2, 1, 3)
    assert manifest.images.findings.map(list).tolist() == [[1], [0]]


@pytest.mark.parametrize("name", ["Patient 1/IM0", "./Patient 1/IM0", "PATIENT 1\\im0"])
def test_a_file_that_two_rows_name_by_path_and_instance_is_refused_with_both(folder, name):
    instance = pydicom.dcmread(folder / "Patient 1" / "IM0").SOPInstanceUID
    (folder / "labels.csv").write_text(f"image,patient,Mass\n{instance},97,1\n{name},97,0\n")
    with pytest.raises(InputError) as refused:
        read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers())
    assert f"{str(instance)!r} and {name!r} are the same file, 'Patient 1/IM0': keep one row" in str(refused.value)


def test_patients_of_a_table_are_the_same_with_zeros_before_they_are_hashed(folder):
    rows = ["Patient 1/IM0,1,1", "Patient 2/IM0,001,1", "Patient 3/IM0,1.0,0"]
    (folder / "labels.csv").write_text("\n".join(["image,patient,Mass", *rows]))
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers())
    assert manifest.images.patient_id.nunique() == 1


def test_a_cell_that_says_nothing_leaves_the_tag(folder):
    columns = Columns(age="age", sex="sex", view="view")
    (folder / "labels.csv").write_text("image,patient,age,sex,view,Mass\nPatient 1/IM0,n/a,nan,unknown,-,1\n")
    images = read_manifest(folder, Etl(**SETTINGS, columns=columns), InlineWorkers()).images
    assert images.loc[0, ["age_years", "sex", "view"]].tolist() == [61, "F", "AP"]
    assert images.reason.isna().all()


def test_a_label_file_of_another_name_must_exist(folder):
    with pytest.raises(InputError, match=r"no label file at .*/trian.csv: check --etl.source and --etl.columns"):
        read_manifest(folder, Etl(**SETTINGS, columns=Columns(label_file="trian.csv")), InlineWorkers())


def test_hidden_files_and_the_index_are_left_out(folder):
    for name in (".Trash/9.dcm", "__MACOSX/3.dcm", "DICOMDIR"):
        write_film(folder / name, "HOSP-99", 3, 9999)
    manifest = read_manifest(folder, Etl(**SETTINGS), InlineWorkers())
    assert len(manifest.images) == 30
    assert manifest.left_out == {"hidden": 1, "in __MACOSX": 1, "without ending, no DICOM": 1}
    # A table may name them all the same.
    (folder / "labels.csv").write_text("image,patient,Mass\n.Trash/9.dcm,99,1\nPatient 1/IM0,97,1\n")
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers())
    assert (len(manifest.images), manifest.absent) == (2, 0)
    assert len(manifest.images) + sum(manifest.left_out.values()) == 30 + 3


def test_of_two_files_of_one_instance_the_one_with_a_patient_counts(folder):
    film = write_film(folder / "b" / "IM0", "HOSP-99", 3, 9999)
    film.PatientID = ""
    for name in ("a", "c"):
        (folder / name).mkdir()
        film.save_as(folder / name / "IM0", enforce_file_format=True)
    images = read_manifest(folder, Etl(**SETTINGS), InlineWorkers()).images
    assert images.reason.value_counts().to_dict() == {"duplicate: same SOP Instance UID as another file": 2}
    assert str(folder / "b" / "IM0") in set(images.path[images.reason.isna()])
    (folder / "labels.csv").write_text(f"image,Mass\n{film.SOPInstanceUID},1\n")
    images = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers()).images
    assert images.findings[images.reason.isna()].map(list).tolist() == [[1]]


def test_a_name_below_a_link_is_found_and_the_table_by_any_path(folder):
    (folder / "current").symlink_to(folder / "Patient 1")
    (folder / "labels.csv").write_text("image,patient,Mass\ncurrent/IM0,97,1\n")
    columns = Columns(label_file="Patient 2/../labels.csv")
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=columns), InlineWorkers())
    assert (len(manifest.images), manifest.absent) == (1, 0)
    assert manifest.left_out == {"without ending, not listed in labels.csv": 29}


def test_patients_that_a_spreadsheet_has_rounded_are_refused_before_they_are_hashed(folder):
    (folder / "labels.csv").write_text("image,patient,Mass\nPatient 1/IM0,1.23457E+11,1\n")
    with pytest.raises(InputError, match=r"line 2: the patient is '1.23457E\+11'"):
        read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers())


def test_without_any_patient_the_message_says_that_a_table_may_name_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", SALT)
    write_film(tmp_path / "1", "", 3, 9999)
    with pytest.raises(InputError, match=r"1 no PatientID.*see --etl.columns.patient"):
        read_manifest(tmp_path, Etl(**SETTINGS), InlineWorkers())


def test_one_strange_sex_does_not_change_the_meaning_of_the_others(folder):
    write_film(folder / "m", "HOSP-98", 3, 9998, PatientSex="M")
    write_film(folder / "h", "HOSP-99", 3, 9999, PatientSex="H")
    images = read_manifest(folder, Etl(**SETTINGS), InlineWorkers()).images
    assert images.sex.value_counts().to_dict() == {"F": 30, "M": 1}


def test_a_folder_without_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", SALT)
    with pytest.raises(InputError, match="none of the 0 files below .* is DICOM"):
        read_manifest(tmp_path, Etl(format="dicom"), InlineWorkers())


def test_a_message_on_splits_names_no_patient_and_an_empty_cell_leaves_the_tag(folder):
    files = [f"Patient {patient}/IM0" for patient in range(20)]
    table = folder / "labels.csv"
    table.write_text(
        "image,Mass,part,view\n" + "".join(f"{file},1,,{'PA' if at else ''}\n" for at, file in enumerate(files))
    )
    columns = Columns(view="view")
    images = read_manifest(folder, Etl(**{**SETTINGS, "columns": columns}), InlineWorkers()).images
    assert sorted(images["view"].value_counts().items()) == [("AP", 1), ("PA", 19)]
    files = ["Patient 1/IM0", "Patient 1/IM1"]
    table.write_text(
        "image,Mass,part\n" + "".join(f"{file},1,{part}\n" for file, part in zip(files, ("train", "test"), strict=True))
    )
    with pytest.raises(
        InputError,
        match="1 patient is in more than one split.* in the rows of 'Patient 1/IM0' and 'Patient 1/IM1': fix",
    ) as refused:
        read_manifest(folder, Etl(**{**SETTINGS, "columns": Columns(split="part")}), InlineWorkers())
    assert "HOSP" not in str(refused.value)


@pytest.mark.parametrize("group", [0x0009, 0x0011, 0x0019, 0x0021])
@pytest.mark.parametrize("size", [1_200_000, HEAD_BYTES])
def test_tags_behind_much_private_data_are_read(folder, group, size):
    film = write_film(folder / "odd", "HOSP-99", 3, 9999, BurnedInAnnotation="YES")
    block = film.private_block(group, "VENDOR", create=True)
    block.add_new(1, "OB", b"x" * size)
    film.save_as(folder / "odd", enforce_file_format=True)
    if size == HEAD_BYTES:
        # The head ends exactly where the element does.
        start = (folder / "odd").read_bytes().index(b"x" * 1000)
        block.add_new(1, "OB", b"x" * (HEAD_BYTES - start))
        film.save_as(folder / "odd", enforce_file_format=True)
        assert (folder / "odd").read_bytes()[HEAD_BYTES - 1 : HEAD_BYTES + 1].count(b"x") == 1
    images = read_manifest(folder, Etl(**SETTINGS), InlineWorkers()).images
    assert images.reason.dropna().str.startswith("burned-in annotation").tolist() == [True]


def test_the_patient_behind_much_private_data_is_read(folder):
    film = write_film(folder / "odd", "HOSP-99", 3, 9999)
    film.private_block(0x0009, "VENDOR", create=True).add_new(1, "OB", bytes(1_200_000))
    film.save_as(folder / "odd", enforce_file_format=True)
    images = read_manifest(folder, Etl(**SETTINGS), InlineWorkers()).images
    assert images.reason.isna().all() and hide("HOSP-99", SALT) in set(images.patient_id)


@pytest.mark.parametrize("name", ["train/3", "./train/3", "3"])
def test_of_two_files_of_one_instance_the_one_that_the_table_names_counts(folder, name):
    for patient in range(20):
        for path in (folder / f"Patient {patient}").iterdir():
            path.unlink()
    for number in range(6):
        write_film(folder / "all" / f"{number}.dcm", f"HOSP-{number}", 3, number)
    (folder / "train").mkdir()
    (folder / "train" / "3").write_bytes((folder / "all" / "3.dcm").read_bytes())
    (folder / "labels.csv").write_text(f"image,patient,Mass\n{name},n/a,1\nall/1.dcm,n/a,0\n")
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers())
    labels = dict(zip(manifest.images.path, manifest.images.findings.map(list), strict=True))
    assert labels == {str(folder / "all" / "1.dcm"): [0], str(folder / "train" / "3"): [1]}
    assert manifest.left_out == {".dcm, not listed in labels.csv": 5}
    # By its instance, any of the two.
    instance = pydicom.dcmread(folder / "train" / "3").SOPInstanceUID
    (folder / "labels.csv").write_text(f"image,patient,Mass\n{instance},n/a,1\n")
    images = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers()).images
    assert images.findings[images.reason.isna()].map(list).tolist() == [[1]]


def with_patients(folder: Path, *cells: str, tag: str = "P8") -> None:
    """As many films whose tags name one patient, in a table with these cells."""
    for number, _ in enumerate(cells):
        write_film(folder / f"film{number}", tag, 3, number + 9000)
    rows = [f"film{number},{cell},1" for number, cell in enumerate(cells)]
    (folder / "labels.csv").write_text(
        "\n".join(["image,patient,Mass", *rows, "Patient 1/IM0,,0", "Patient 3/IM0,3,0"])
    )


@pytest.mark.parametrize("empty", ["", "n/a"])
def test_a_patient_whom_only_some_rows_name_stays_one(folder, empty):
    with_patients(folder, "17", empty, "017", empty)
    images = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers()).images
    assert images.patient_id.value_counts().to_dict() == {
        hide("17", SALT): 4,
        hide("HOSP-1", SALT): 1,
        hide("3", SALT): 1,
    }


def test_rows_without_a_patient_are_refused_where_their_tag_has_several_in_the_table(folder):
    with_patients(folder, "17", "18", "")
    with pytest.raises(
        InputError, match=r"labels.csv: 1 row, .*'film2', has no patient in the column 'patient'"
    ) as refused:
        read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers())
    assert "P8" not in str(refused.value) and "17" not in str(refused.value)
    # Without any tag, they name nobody, as before.
    with_patients(folder, "17", "18", "", tag="")
    images = read_manifest(folder, Etl(**SETTINGS, columns=Columns()), InlineWorkers()).images
    assert images.reason.dropna().str.startswith("no PatientID").tolist() == [True]


def test_a_patient_column_that_is_named_must_exist_and_the_default_one_is_missed_aloud(folder):
    (folder / "labels.csv").write_text("image,Patient ID,Mass\nPatient 1/IM0,97,1\nPatient 2/IM0,98,1\n")
    with pytest.raises(InputError, match="PatientID"):
        read_manifest(folder, Etl(**SETTINGS, columns=Columns(patient="PatientID", findings=["Mass"])), InlineWorkers())
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=Columns(findings=["Mass"])), InlineWorkers())
    assert "labels.csv has no column 'patient': the patients are those of the tags" in manifest.notes
    manifest = read_manifest(folder, Etl(**SETTINGS, columns=Columns(patient="", findings=["Mass"])), InlineWorkers())
    assert not any("patient" in note for note in manifest.notes)


def test_one_instance_in_many_files_is_named_as_the_cause(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", SALT)
    for number in range(8):
        write_film(tmp_path / f"{number}", f"HOSP-{number}", 3, number, SOPInstanceUID="1.2.3")
    with pytest.raises(InputError, match="7 of 8 .* SOP Instance UID of another one, such as '1' and '0': give each"):
        read_manifest(tmp_path, Etl(**SETTINGS), InlineWorkers())
    # With the share that they are allowed, copies are quarantined.
    images = read_manifest(tmp_path, Etl(**SETTINGS, max_quarantined_fraction=1), InlineWorkers()).images
    assert images.reason.notna().sum() == 7


def test_without_any_instance_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", SALT)
    film = write_film(tmp_path / "1", "HOSP-1", 3, 1)
    del film.SOPInstanceUID
    film.save_as(tmp_path / "1")
    with pytest.raises(InputError, match="no SOPInstanceUID: give each file one, or .* --etl.format csv"):
        read_manifest(tmp_path, Etl(**SETTINGS), InlineWorkers())


def test_too_many_bad_films_are_named_with_their_whole_reason_and_where_their_names_are(folder, workspace):
    for number in range(9):
        write_film(folder / f"frames{number}", f"HOSP-{number}", 3, 9000 + number, NumberOfFrames=2)
    with pytest.raises(
        InputError, match=r"2 frames, expected one 9 \(such as \w+: save the one that you.*dicom_paths.csv"
    ):
        run(folder, workspace)
