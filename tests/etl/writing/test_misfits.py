"""A DICOM file that is no film of a chest for reading is left out in the same words by every format."""

from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import Dicom, Etl
from conf.workspace import Workspace
from etl.contract.images.dicom.tags import read_tags
from etl.sources.read import read_manifest
from etl.writing import shard_file
from etl.writing.publish import Published, publish
from tests.conftest import InlineWorkers
from tests.etl.dicom_files import build, written
from tests.etl.tables import ANY

MISFITS = {
    "ct": {"Modality": "CT"},
    "unnamed": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
    "raw": {"PresentationIntentType": "FOR PROCESSING"},
    "hand": {"BodyPartExamined": "HAND"},
    "named": {"BurnedInAnnotation": "YES"},
}
REASONS = {
    "ct": "modality CT: not in etl.dicom.modalities (CR, DX, RG)",
    "unnamed": "modality MR: not in etl.dicom.modalities (CR, DX, RG)",
    "raw": "for processing: a raw image; its twin for presentation is the one to read",
    "hand": "body part HAND: not the chest",
    "named": "burned-in annotation: the pixels may show a name; --etl.dicom.burned_in true keeps such films",
}
CHEXPERT_COLUMNS = "Path,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia"
CHEXPERT_COLUMNS += ",Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"


def film(number: int, **tags) -> bytes:
    """A film of 40x40 pixels of noise, of a patient of its own."""
    pixels = np.random.default_rng(number).integers(0, 4096, (40, 40), dtype=np.uint16)
    own = {"SOPInstanceUID": f"1.2.{number}", "PatientID": f"P{number}", "BitsStored": 12}
    return written(build(pixels, **own | {"WindowCenter": 2048, "WindowWidth": 4096} | tags))


def films(**more) -> dict[str, bytes]:
    """Name -> content: thirty films, the misfits, and one film of each of `more`."""
    named = {f"film{number}": {} for number in range(30)} | MISFITS | more
    return {name: film(number, **tags) for number, (name, tags) in enumerate(named.items())}


def write(source: Path, layout: str, contents: dict[str, bytes]) -> None:
    """The source in the layout of this format."""
    (source / "images").mkdir(parents=True)
    if layout == "nih":
        rows = [f"{name},Mass,{n},{n},58,F,PA" for n, name in enumerate(contents)]
        header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
        (source / "Data_Entry_2017.csv").write_text("\n".join([header, *rows]))
    if layout == "csv":
        rows = [f"images/{name},{n},1" for n, name in enumerate(contents)]
        (source / "labels.csv").write_text("\n".join(["image,patient,Mass", *rows]))
    if layout == "chexpert":
        paths = [f"patient{n}/study1/{name}" for n, name in enumerate(contents)]
        for table, part in (("train", paths[8:]), ("valid", paths[:8])):
            lines = [f"{source.name}/{path}" + ",1" * 13 for path in part]
            (source / f"{table}.csv").write_text("\n".join([CHEXPERT_COLUMNS, *lines]))
    for number, (name, content) in enumerate(contents.items()):
        folder = {"classes": "ab"[number % 2], "chexpert": f"patient{number}/study1"}.get(layout, "images")
        (source / folder).mkdir(parents=True, exist_ok=True)
        (source / folder / name).write_bytes(content)


def run(source: Path, layout: str, workspace: Workspace, **changes) -> Published:
    split = "source" if layout == "chexpert" else "hashed"
    small = {"sizes_px": [32], "val_fraction": 0.3, "test_fraction": 0.3, "quality": ANY, "split": split}
    settings = Etl(format=layout, **small | changes)
    manifest = read_manifest(source, settings, InlineWorkers())
    return publish(workspace.tables(""), settings, str(source), manifest, InlineWorkers())


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv("CHEXSCALE_SALT", "not a secret, as it stands here")
    return Workspace.at(str(tmp_path / "workspace"))


@pytest.mark.parametrize("layout", ["nih", "csv", "chexpert", "classes", "dicom"])
def test_a_misfit_is_quarantined_in_the_same_words_by_every_format_and_is_no_bad_image(tmp_path, workspace, layout):
    write(tmp_path / "source", layout, films())
    # No share of bad images is allowed, and none is bad.
    outcome = run(tmp_path / "source", layout, workspace, max_quarantined_fraction=0)
    assert sorted(outcome.quarantine.reason) == sorted(REASONS.values())
    assert len(outcome.rows) == 30
    again = run(tmp_path / "source", layout, workspace, max_quarantined_fraction=0)
    assert not again.committed and set(again.counts.values()) == {0}
    kept = run(tmp_path / "source", layout, workspace, dicom=Dicom(["CT", "MR"], True))
    assert sorted(kept.quarantine.reason) == sorted([REASONS["raw"], REASONS["hand"]])


@pytest.mark.parametrize("layout", ["csv", "classes"])
def test_a_film_without_an_instance_is_a_film_and_damage_is_a_bad_image(tmp_path, workspace, layout):
    contents = films(nameless={"SOPInstanceUID": "9.8.7"}, unknown={"BodyPartExamined": "XYZ"})
    contents["nameless"] = contents["nameless"].replace(b"9.8.7", bytes(5))
    assert not read_tags(contents["nameless"]).instance
    write(tmp_path / "source", layout, contents | {"cut": contents["film1"][:400]})
    with pytest.raises(InputError, match=r"1 of 33 images is bad"):
        run(tmp_path / "source", layout, workspace, max_quarantined_fraction=0)
    outcome = run(tmp_path / "source", layout, workspace)
    assert {"nameless", "unknown"} <= {name.split("/")[-1] for name in outcome.rows.image_id}
    assert len(outcome.quarantine) == len(MISFITS) + 1


def test_a_split_of_misfits_is_named_with_what_left_them_out(tmp_path, workspace):
    contents = {f"film{n}": film(n, **({"Modality": "CT"} if n < 8 else {})) for n in range(20)}
    write(tmp_path / "source", "chexpert", contents)
    with pytest.raises(InputError, match=r"the test split has no images: its 8 images are left out \(8 modality CT\)"):
        run(tmp_path / "source", "chexpert", workspace)
    assert not list(workspace.shards.glob("split=*/*"))


def test_the_tags_are_asked_once_in_format_dicom_and_by_the_decoder_in_others(tmp_path, workspace, monkeypatch):
    asked = []

    def find(content: bytes, wanted: Dicom) -> None:
        asked.append(content)

    monkeypatch.setattr(shard_file, "misfit_of", find)
    contents = {name: content for name, content in films().items() if name not in MISFITS}
    for layout, number in (("dicom", 0), ("csv", 30)):
        write(tmp_path / layout, layout, contents)
        run(tmp_path / layout, layout, Workspace.at(str(tmp_path / f"{layout} workspace")))
        assert len(asked) == number
