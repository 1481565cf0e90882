"""Several sources as one manifest: names, findings, boxes, counts, and what is refused."""

import re

import numpy as np
import pytest
import yaml

from conf.errors import InputError
from conf.settings import Dicom, Etl
from etl.contract.schema import NIH_FINDINGS
from etl.sources.joining.sources import OF_BOTH, OF_THE_RUN, for_the_run, open_sources
from etl.sources.read import read_manifest
from tests.etl.dicom_files import TWO, build, written
from tests.etl.several_sources import Sources, read
from tests.etl.tables import film

BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


@pytest.fixture
def sources(tmp_path) -> Sources:
    return Sources(tmp_path)


def labels_of(manifest, source: str) -> dict[str, list[float]]:
    """Finding -> labels of the source's images, sorted by image."""
    images = manifest.images[manifest.images.source == source].sort_values("image_id")
    return dict(zip(manifest.findings, np.stack(images.findings).T.tolist(), strict=True))


def test_images_and_patients_of_different_sources_stay_apart(sources):
    manifest = read(sources.settings())
    images = manifest.images.set_index("image_id")
    assert len(images) == 24 + 18 == manifest.listed
    assert images.loc["nih/00000001_000.png", ["patient_id", "source"]].tolist() == ["nih/1", "nih"]
    assert images.loc["hospital/1.png", ["patient_id", "source"]].tolist() == ["hospital/1", "hospital"]
    assert images.index.is_unique and set(manifest.names) == set(images.index)
    assert list(manifest.sources) == ["nih", "hospital"]


def test_each_source_has_the_split_that_it_has_alone(sources):
    images = read(sources.settings()).images
    for name in ("nih", "hospital"):
        alone = open_sources(sources.settings(name))[0]
        expected = read_manifest(alone.place, alone.settings).images.split.tolist()
        assert images.split[images.source == name].tolist() == expected
    assert images.split[images.source == "hospital"].tolist() == ["train", "val", "test"] * 6


def test_findings_are_joined_by_term_and_unknown_where_a_source_does_not_label_them(sources):
    manifest = read(sources.settings())
    assert manifest.findings == [
        *(name.replace("_", " ").replace("Effusion", "Pleural Effusion") for name in NIH_FINDINGS),
        "Nodule/Mass",
        "Rib Fracture",
    ]
    nih, hospital = labels_of(manifest, "nih"), labels_of(manifest, "hospital")
    assert set(nih["Pleural Effusion"]) == set(hospital["Pleural Effusion"]) == {0, 1}
    assert np.isnan(nih["Rib Fracture"]).all() and np.isnan(hospital["Hernia"]).all()
    # Where neither a nodule nor a mass is, there is no nodule; otherwise either may be there.
    union = np.array(hospital["Nodule/Mass"])
    np.testing.assert_array_equal(hospital["Nodule"], np.where(union == 1, np.nan, 0))
    np.testing.assert_array_equal(nih["Nodule/Mass"], np.fmax(nih["Nodule"], nih["Mass"]))
    assert (
        "hospital: 12 labels of Nodule, 12 labels of Mass follow from its other labels; of Nodule and Mass it only "
        "ever says absent, by which a model could tell this source from the others"
    ) in manifest.notes
    assert "nih: 24 labels of Nodule/Mass follow from its other labels" in manifest.notes


def test_the_joint_findings_can_be_chosen_renamed_and_merged(sources):
    manifest = read(sources.settings(findings=["Rib fracture", "Effusion", "Lesion=Nodule/Mass"]))
    assert manifest.findings == ["Rib fracture", "Effusion", "Lesion"]
    assert set(labels_of(manifest, "nih")["Lesion"]) == {0, 1}
    with pytest.raises(InputError, match="'Scoliosis', which no source has"):
        read(sources.settings(findings=["Scoliosis"]))


def test_a_source_may_choose_its_findings_itself(sources):
    sources.scenario("nih", source=str(sources.nih.root), findings=["Effusion", "Rib Fracture=Hernia"])
    manifest = read(sources.settings())
    assert manifest.findings == ["Pleural Effusion", "Rib Fracture", "Nodule/Mass"]
    assert set(labels_of(manifest, "nih")["Rib Fracture"]) == {0}


def test_boxes_point_to_the_joint_findings(sources):
    lines = ["00000001_001.png,Mass,0,0,512,512,,,", "00000001_001.png,Nodule,0,0,256,256,,,"]
    (sources.nih.root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *lines]))
    joint = read(sources.settings("hospital", "nih"))
    boxes = joint.images.set_index("image_id").boxes["nih/00000001_001.png"]
    assert [joint.findings[int(index)] for index in boxes[::5]] == ["Mass", "Nodule"]
    chosen = read(sources.settings("hospital", "nih", findings=["Effusion", "Any=Nodule+Hernia"]))
    assert chosen.images.set_index("image_id").boxes["nih/00000001_001.png"] == [1, 0, 0, 0.25, 0.25]
    assert "1 box of these findings is left out too" in chosen.notes


def test_what_was_left_out_and_not_understood_is_counted_for_all(sources):
    (sources.folder / "films" / "hospital" / "notes.txt").touch()
    (sources.folder / "films" / "hospital" / "17.png").unlink()
    sources.nih.rows[0][6] = sources.nih.rows[1][6] = "XYZ"
    sources.nih.write_lists()
    manifest = read(sources.settings())
    assert manifest.left_out == {".txt, not listed in labels.csv (hospital)": 1}
    assert (manifest.listed, manifest.absent) == (42, 1)
    assert manifest.not_understood == {"view": {"XYZ": 2}}
    assert {"nih/Data_Entry_2017_v2020.csv", "hospital/labels.csv"} <= set(manifest.sha256)
    assert any(note.startswith("hospital: every column without a role") for note in manifest.notes)


def test_views_and_lists_of_a_source_are_its_own(sources, tmp_path):
    (tmp_path / "bad.csv").write_text("3.png\n")
    place = str(sources.folder / "films" / "hospital")
    sources.scenario("hospital", source=place, format="csv", columns={"split": "part"}, exclude=["bad.csv"])
    sources.scenario("nih", source=str(sources.nih.root), views=["AP"])
    with pytest.raises(InputError, match=r"source hospital: .*bad.csv.*belong in .*hospital.yaml"):
        read(sources.settings())
    sources.scenario(
        "hospital", source=place, format="csv", columns={"split": "part"}, exclude=[str(tmp_path / "bad.csv")]
    )
    images = read(sources.settings()).images.set_index("image_id")
    assert images.reason["hospital/3.png"] == "listed in bad.csv"
    assert images.reason[images.source == "nih"].notna().all()
    assert images.reason[images.source == "hospital"].notna().sum() == 1


def test_a_scenario_that_sets_what_counts_for_all_says_so(sources):
    sources.scenario("nih", source=str(sources.nih.root), sizes_px=[96], quality={"lateral": True}, square="pad")
    settings = sources.settings()
    nih, _ = open_sources(settings)
    assert (nih.settings.sizes_px, nih.settings.quality) == (settings.sizes_px, settings.quality)
    said = [note for note in read(settings).notes if "does not count" in note]
    assert len(said) == 1 and re.match("nih: etl.quality, etl.sizes_px of .*nih.yaml does not count", said[0])


def test_every_setting_belongs_to_the_run_or_to_its_sources():
    assert {*OF_THE_RUN, *OF_BOTH} <= set(Etl.__dataclass_fields__)
    assert not set(OF_THE_RUN) & set(OF_BOTH)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"source": "elsewhere"}, "etl.source is set beside etl.sources.*in the scenario file of that source"),
        ({"format": "csv"}, "etl.format is set beside etl.sources"),
        ({"views": ["PA"]}, "etl.views is set beside"),
        ({"val_fraction": 0.3}, "etl.val_fraction is set beside"),
        ({"dicom": Dicom(burned_in=True)}, "etl.dicom is set beside"),
        ({"shared_patients": ["nih", "rsna"]}, "etl.shared_patients names 'rsna'.*none of the sources nih, hospital"),
    ],
)
def test_settings_of_a_run_that_its_sources_would_have_to_set_are_refused(sources, own, said):
    with pytest.raises(InputError, match=said):
        open_sources(sources.settings(**own))


@pytest.mark.parametrize(
    ("etl", "said"),
    [
        ({}, "etl.source in .*odd.yaml is 'phantoms', expected the folder of a source"),
        ({"source": "x", "sources": ["nih.yaml"]}, "odd.yaml has etl.sources itself"),
        ({"source": "x", "fromat": "csv"}, "odd.yaml:3: unknown setting etl.fromat; did you mean etl.format"),
        ({"source": "x", "format": "cvs"}, "odd.yaml: etl.format is 'cvs'"),
    ],
)
def test_a_faulty_scenario_of_a_source_is_named(sources, etl, said):
    path = sources.folder / "odd.yaml"
    path.write_text(yaml.safe_dump({"etl": etl} if etl else {"workspace": "runs/odd"}, sort_keys=False))
    with pytest.raises(InputError, match=said):
        open_sources(Etl(sources=[str(path)]))


def test_a_faulty_source_is_named_with_its_file(sources):
    (sources.folder / "films" / "hospital" / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"source hospital: no label file.*belong in .*hospital.yaml"):
        read(sources.settings())


def test_names_of_sources_are_given_by_their_files_or_before_them(sources):
    file = str(sources.folder / "nih.yaml")
    named = open_sources(sources.settings(sources=[f"one={file}", f"TWO.2={file}"]))
    assert [source.name for source in named] == ["one", "TWO.2"]
    with pytest.raises(InputError, match="are both called 'NIH'.*NAME=FILE"):
        open_sources(sources.settings(sources=[file, f"NIH={file}"]))
    for name in ("a/b", "", "a b", ".x"):
        with pytest.raises(InputError, match="expected letters, digits.*NAME="):
            open_sources(sources.settings(sources=[f"{name}={file}"]))


def test_grey_and_colour_are_not_mixed(sources):
    for index in range(8):
        path = sources.folder / "films" / "classes" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film(index))
    sources.scenario("classes", source=str(sources.folder / "films" / "classes"), format="classes")
    with pytest.raises(InputError, match="source nih is read in grey and classes in colour"):
        read(sources.settings("nih", "classes"))


def test_one_source_may_be_listed_alone(sources):
    manifest = read(sources.settings("hospital"))
    assert manifest.images.image_id[0] == "hospital/0.png"
    assert manifest.findings == ["Pleural Effusion", "Nodule/Mass", "Rib Fracture"]


def share(sources: Sources, split: str) -> Etl:
    """A second label table of the same films of the NIH folder, with other labels, which names the same patients."""
    place = sources.folder / "films" / "again"
    place.mkdir()
    names = [row[0] for row in sources.nih.rows if int(row[3]) < 9]
    (place / "labels.csv").write_text(
        "image,patient,Fracture\n" + "".join(f"{name},{int(name[:8])},1\n" for name in names)
    )
    for index, name in enumerate(names):
        (place / name).write_bytes(film(500 + index))
    sources.scenario("again", source=str(place), format="csv", split="hashed", val_fraction=0.3)
    sources.scenario("nih", source=str(sources.nih.root), split=split, val_fraction=0.3)
    return sources.settings("nih", "again", shared_patients=["nih", "again"])


def test_shared_patients_are_in_one_split(sources):
    images = read(share(sources, "hashed")).images
    assert images.groupby("patient_id").split.nunique().eq(1).all()
    assert images.patient_id.str.startswith("again+nih/").all()
    assert images[images.patient_id == "again+nih/1"].source.nunique() == 2


def test_shared_patients_in_different_splits_are_refused(sources):
    with pytest.raises(
        InputError, match=r"in different splits of the sources nih, again.*again\+nih/\d.*etl.split hashed"
    ):
        read(share(sources, "source"))


def test_films_of_dicom_sources_stay_without_names(sources, monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcdef")
    place = sources.folder / "films" / "dicom"
    place.mkdir()
    for number in range(6):
        film_file = build(TWO, PatientID=f"HOSP-{number}", SOPInstanceUID=f"1.2.{number}", Modality="CR")
        (place / f"{number}.dcm").write_bytes(written(film_file))
    (place / "none.dcm").write_bytes(written(build(TWO, PatientID="", SOPInstanceUID="1.2.9", Modality="CR")))
    sources.scenario("dicom", source=str(place), format="dicom", dicom={"modalities": ["CR", "DR"], "burned_in": True})
    settings = sources.settings("dicom", "hospital", findings=["Effusion"])
    manifest = read(settings)
    assert manifest.identities
    images = manifest.images[manifest.images.source == "dicom"]
    assert len(images) == 7 and not images.image_id.str.contains("HOSP|1.2").any()
    assert images.image_id.str.fullmatch(r"dicom/[0-9a-f]{20}").all()
    assert images.patient_id[images.reason.isna()].str.fullmatch(r"dicom/[0-9a-f]{20}").all()
    assert [np.isnan(labels).all() for labels in images.findings[images.reason.isna()]] == [True] * 6
    # A model takes over what any source keeps.
    kept = for_the_run(settings, open_sources(settings)).dicom
    assert kept == Dicom(["CR", "DR", "DX", "RG"], burned_in=True)
