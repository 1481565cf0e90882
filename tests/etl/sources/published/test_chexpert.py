"""The manifest of a folder in CheXpert's layout, with its quirks."""

import gzip

import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import Etl
from etl.sources.published.chexpert import CHEXPERT_FINDINGS
from etl.sources.read import read_manifest
from tests.etl.sources.published.published import label_files, touch

HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *CHEXPERT_FINDINGS]
ROOT = "CheXpert-v1.0-small"


def row(path: str, view: str = "Frontal", position: str = "AP", **labels: str) -> list[str]:
    cells = [labels.get(finding.replace(" ", "_"), "") for finding in ["No Finding", *CHEXPERT_FINDINGS]]
    return [f"{ROOT}/{path}", "Female", "68", view, position, *cells]


@pytest.fixture
def chexpert(tmp_path):
    """60 training patients with a frontal and a lateral image of one study, two test patients."""
    root = tmp_path / ROOT
    train = []
    for patient in range(1, 61):
        study = f"train/patient{patient:05}/study2"
        train.append(row(f"{study}/view1_frontal.jpg", Edema="1.0", Pneumonia="-1.0", Fracture="0.0"))
        train.append(row(f"{study}/view2_lateral.jpg", "Lateral", "", No_Finding="1.0"))
    valid = [row(f"valid/patient{64540 + patient}/study1/view1_frontal.jpg", position="PA") for patient in range(2)]
    for name, rows in (("train.csv", train), ("valid.csv", valid)):
        for cells in rows:
            file = tmp_path / cells[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        write(root / name, rows)
    return root


def write(path, rows) -> None:
    path.write_text("".join(",".join(cells) + "\n" for cells in [HEADER, *rows]))


def test_rows_follow_the_contract(chexpert):
    (chexpert / "train/patient00003/study2/view2_lateral.jpg").unlink()
    (chexpert / "train/patient00003/extra.jpg").touch()
    manifest = read_manifest(chexpert, Etl(format="chexpert"))
    assert manifest.findings == list(CHEXPERT_FINDINGS)
    assert (manifest.listed, len(manifest.images), manifest.absent, sum(manifest.left_out.values())) == (122, 121, 1, 1)
    rows = manifest.images.set_index("image_id")
    frontal = rows.loc["train/patient00001/study2/view1_frontal.jpg"]
    assert (frontal.patient_id, frontal.follow_up, frontal.age_years, frontal.sex) == ("patient00001", 1, 68, "F")
    assert frontal["view"] == "AP"
    assert rows.loc["train/patient00001/study2/view2_lateral.jpg"]["view"] == "LATERAL"
    assert rows.loc["valid/patient64541/study1/view1_frontal.jpg"]["view"] == "PA"
    assert frontal.path == str(chexpert / "train/patient00001/study2/view1_frontal.jpg")


def test_a_column_that_is_lacking_is_said(chexpert):
    assert read_manifest(chexpert, Etl(format="chexpert")).notes == []
    header, *rows = (chexpert / "train.csv").read_text().splitlines()
    (chexpert / "train.csv").write_text("\n".join([header.replace("AP/PA", "Position"), *rows]))
    notes = read_manifest(chexpert, Etl(format="chexpert")).notes
    assert notes == ["train.csv has no column 'AP/PA', so that is unknown"]


def test_a_name_below_a_link_is_found(chexpert):
    (chexpert / "old").symlink_to(chexpert / "train")
    (chexpert / "train.csv").write_text((chexpert / "train.csv").read_text().replace("/train/", "/old/"))
    assert read_manifest(chexpert, Etl(format="chexpert")).absent == 0


@pytest.mark.parametrize(("uncertain", "becomes"), [("unknown", np.nan), ("zero", 0), ("one", 1)])
def test_uncertain_is_what_the_setting_says_and_blank_is_absent(chexpert, uncertain, becomes):
    images = read_manifest(chexpert, Etl(format="chexpert", uncertain=uncertain)).images
    labels = dict(zip(CHEXPERT_FINDINGS, images.findings[0], strict=True))
    np.testing.assert_equal(labels["Pneumonia"], becomes)
    assert (labels["Edema"], labels["Fracture"], labels["Lung Opacity"]) == (1, 0, 0)


def test_valid_csv_is_the_test_split_and_validation_is_taken_from_train_by_patient(chexpert):
    images = read_manifest(chexpert, Etl(format="chexpert")).images
    assert set(images.image_id[images.split == "test"].str[:5]) == {"valid"}
    assert set(images.split) == {"train", "val", "test"}
    assert images.groupby("patient_id").split.nunique().max() == 1


def test_a_cell_that_is_no_label_is_named_with_its_line(chexpert):
    write(chexpert / "valid.csv", [row("valid/patient1/study1/a.jpg"), row("valid/patient2/study1/a.jpg", Edema="yes")])
    with pytest.raises(InputError, match=r"valid.csv line 3: Edema is 'yes', expected 1 \(present\)"):
        read_manifest(chexpert, Etl(format="chexpert"))


def test_a_path_without_a_patient_is_named(chexpert):
    write(chexpert / "valid.csv", [row("valid/view1_frontal.jpg")])
    with pytest.raises(InputError, match=r"valid.csv line 2: no patient"):
        read_manifest(chexpert, Etl(format="chexpert"))


def test_a_missing_table(chexpert):
    (chexpert / "valid.csv").unlink()
    with pytest.raises(InputError, match=r"no valid.csv in .*, nor in exactly one folder below it"):
        read_manifest(chexpert, Etl(format="chexpert"))


def test_none_of_the_images_is_there(chexpert):
    for image in chexpert.rglob("*.jpg"):
        image.unlink()
    with pytest.raises(InputError, match="none of the 122 listed images is below"):
        read_manifest(chexpert, Etl(format="chexpert"))


def test_the_release_in_four_parts_is_read_as_it_is(chexpert):
    expected = read_manifest(chexpert, Etl(format="chexpert")).images
    first, second, third = (chexpert.parent / "parts" / f"CheXpert-v1.0 batch {number}" for number in (1, 2, 3))
    for part in (first, second, third):
        part.mkdir(parents=True)
    for name in ("train.csv", "valid.csv", "valid"):
        (chexpert / name).rename(first / name)
    for patient in sorted((chexpert / "train").iterdir()):
        patient.rename((second if patient.name < "patient00030" else third) / patient.name)
    found = read_manifest(chexpert.parent / "parts", Etl(format="chexpert"))
    assert (found.absent, sum(found.left_out.values())) == (0, 0)
    paths = ["path", "file_version", "source"]
    assert found.images.drop(columns=paths).astype(str).equals(expected.drop(columns=paths).astype(str))
    (second / "train.csv").write_text((first / "train.csv").read_text())
    (first / "train.csv").rename(third / "train.csv")
    with pytest.raises(InputError, match=r"no train.csv in .* nor in exactly one folder below it \(found: .*2, .*3\)"):
        read_manifest(chexpert.parent / "parts", Etl(format="chexpert"))


def test_a_lateral_position_of_a_frontal_film_is_unknown_and_counted(chexpert):
    path = chexpert / "valid.csv"
    path.write_text(path.read_text().replace(",PA,", ",LL,", 1))
    manifest = read_manifest(chexpert, Etl(format="chexpert"))
    assert manifest.not_understood["view"] == {"Frontal LL": 1}


@pytest.mark.parametrize("word", ["lateral", "L", "LATERAL"])
def test_lateral_films_are_known_in_any_spelling(chexpert, word):
    text = (chexpert / "train.csv").read_text()
    assert ",Lateral," in text
    (chexpert / "train.csv").write_text(text.replace(",Lateral,", f",{word},"))
    images = read_manifest(chexpert, Etl(format="chexpert")).images.set_index("image_id")
    assert images["view"]["train/patient00001/study2/view2_lateral.jpg"] == "LATERAL"


def test_the_real_training_table_is_read_beside_a_toy_valid_csv(chexpert):
    with gzip.open(label_files() / "chexpert_train.csv.gz") as packed:
        (chexpert / "train.csv").write_bytes(packed.read())
    touch(chexpert, "train/patient00001/study1/view1_frontal.jpg")
    # The last patient of the real table is 64540.
    write(chexpert / "valid.csv", [row("valid/patient64541/study1/view1_frontal.jpg")])
    manifest = read_manifest(chexpert, Etl(format="chexpert"))
    assert manifest.listed == 223_414 + 1
    film = manifest.images.set_index("image_id").loc["train/patient00001/study1/view1_frontal.jpg"]
    assert (film.age_years, film.sex, film["view"]) == (68, "F", "AP")
    assert film.findings[CHEXPERT_FINDINGS.index("Support Devices")] == 1
