"""etl.findings chooses, renames, merges and orders the findings of a source."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.schema import NIH_FINDINGS
from etl.sources.findings import choose_findings, merge_labels, move_boxes, read_choices
from etl.sources.read import read_manifest
from tests.conftest import InlineWorkers
from tests.etl.dicom_files import TWO, build, written

BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
LABELS = st_np.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.sampled_from([0, 1]))
UNKNOWN = st.integers(0, 2**24 - 1)


def with_unknown(labels: np.ndarray, mask: int) -> np.ndarray:
    hidden = np.array([mask >> bit & 1 for bit in range(labels.size)], bool).reshape(labels.shape)
    return np.where(hidden, np.float32(np.nan), labels)


def names_of(choices, findings=NIH_FINDINGS) -> dict[str, list[str]]:
    return {choice.name: [findings[part] for part in choice.parts] for choice in choices}


def read(folder, *findings: str, **changes):
    return read_manifest(folder.root, Etl(findings=list(findings), **changes))


def present(manifest) -> dict[str, list[str]]:
    return {
        image: [name for name, value in zip(manifest.findings, values, strict=True) if value == 1]
        for image, values in zip(manifest.images.image_id, manifest.images.findings, strict=True)
    }


@pytest.mark.parametrize(
    ("parts", "merged"),
    [
        ([1, 0], 1),
        ([1, np.nan], 1),
        ([0, 0], 0),
        ([0, np.nan], np.nan),
        ([np.nan, np.nan], np.nan),
        ([0], 0),
        ([1, 1], 1),
    ],
)
def test_a_merger_is_present_if_a_part_is_and_absent_if_all_are(parts, merged):
    np.testing.assert_array_equal(merge_labels(np.float32([parts])), np.float32([merged]))


@given(LABELS, UNKNOWN)
def test_mergers_follow_the_logic_of_or_with_unknown_values(labels, mask):
    known, labels = labels, with_unknown(labels, mask)
    merged = merge_labels(labels)
    assert merged.dtype == np.float32
    # What is known of the merger is true whatever the unknown labels are, and nothing more can be known.
    truth = known.any(axis=1)
    assert np.array_equal(merged[~np.isnan(merged)], truth[~np.isnan(merged)])
    low, high = np.nan_to_num(labels, nan=0).any(axis=1), np.nan_to_num(labels, nan=1).any(axis=1)
    assert np.array_equal(np.isnan(merged), low != high)


@given(LABELS, UNKNOWN, st.randoms())
def test_the_order_and_number_of_parts_do_not_matter(labels, mask, random):
    labels = with_unknown(labels, mask)
    order = list(range(labels.shape[1]))
    random.shuffle(order)
    expected = merge_labels(labels)
    np.testing.assert_array_equal(merge_labels(labels[:, order]), expected)
    np.testing.assert_array_equal(merge_labels(np.concatenate([labels, labels], axis=1)), expected)
    # In steps as at once.
    steps = merge_labels(np.stack([merge_labels(labels[:, :1]), expected], axis=1))
    np.testing.assert_array_equal(steps, expected)
    np.testing.assert_array_equal(merge_labels(labels[:, :1]), labels[:, 0])


def test_without_the_setting_everything_stays(nih_folder):
    manifest = read(nih_folder)
    assert manifest.findings == list(NIH_FINDINGS)
    assert choose_findings(manifest, []) is manifest


def test_findings_are_chosen_renamed_merged_and_ordered(nih_folder):
    nih_folder.rows[0][1] = "Nodule"
    nih_folder.rows[2][1] = "Hernia"
    nih_folder.write_lists()
    manifest = read(nih_folder, "Lesion = Mass + nodule", "pleural effusion", "Lung oedema=Edema")
    assert manifest.findings == ["Lesion", "pleural effusion", "Lung oedema"]
    found = present(manifest)
    assert found["00000001_000.png"] == ["Lesion"]
    assert found["00000001_001.png"] == ["Lesion", "pleural effusion"]
    assert found["00000002_000.png"] == []
    assert {values.dtype for values in manifest.images.findings} == {np.dtype(np.float32)}
    assert "etl.findings makes Lesion = Mass + Nodule, pleural effusion = Effusion, Lung oedema = Edema" in (
        manifest.notes
    )
    left_out = next(note for note in manifest.notes if note.startswith("etl.findings leaves out"))
    assert "Hernia" in left_out and "Mass" not in left_out


def test_unknown_labels_stay_unknown(tmp_path):
    (tmp_path / "labels.csv").write_text("image,patient,A,B,C\n1.png,1,0,,1\n2.png,2,1,,0\n3.png,3,0,0,\n")
    for name in "123":
        (tmp_path / f"{name}.png").touch()
    manifest = read_manifest(tmp_path, Etl(format="csv", findings=["AB=A+B", "C"]))
    expected = [[np.nan, 1], [1, 0], [0, np.nan]]
    np.testing.assert_array_equal(np.stack(manifest.images.findings), np.float32(expected))


def test_boxes_follow_their_finding_and_are_counted_if_it_is_left_out(nih_folder):
    lines = [
        "00000001_001.png,Mass,0,0,512,512,,,",
        "00000001_001.png,Effusion|Mass,512,0,512,512,,,",
        "00000001_001.png,Nodule,512,0,512,512,,,",
        "00000003_001.png,Infiltrate,0,0,256,256,,,",
    ]
    (nih_folder.root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *lines]))
    manifest = read(nih_folder, "Effusion", "Lesion=Nodule+Mass")
    boxes = manifest.images.set_index("image_id").boxes
    # The box of a mass and that of a nodule at the same place are one of a lesion.
    assert boxes["00000001_001.png"] == [1, 0, 0, 0.5, 0.5, 0, 0.5, 0, 0.5, 0.5, 1, 0.5, 0, 0.5, 0.5]
    assert boxes["00000003_001.png"] == []
    assert "1 box of these findings is left out too" in manifest.notes


def test_a_box_belongs_to_every_finding_that_its_own_is_part_of():
    boxes = pd.Series([[2.0, 0.1, 0.1, 0.2, 0.2], [], [0.0, 0.1, 0.1, 0.2, 0.2]])
    moved, dropped = move_boxes(boxes, {0: [], 1: [], 2: [0, 1]})
    assert moved.tolist() == [[0.0, 0.1, 0.1, 0.2, 0.2, 1.0, 0.1, 0.1, 0.2, 0.2], [], []]
    assert dropped == 1


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["Effusion"], {"Effusion": ["Effusion"]}),
        (["Pleural Effusion"], {"Pleural Effusion": ["Effusion"]}),
        (["pleural thickening"], {"pleural thickening": ["Pleural_Thickening"]}),
        (["Nodule/Mass=Mass+Nodule"], {"Nodule/Mass": ["Mass", "Nodule"]}),
        (["A=Mass+mass+MASS"], {"A": ["Mass"]}),
        (["Mass", "Any = Mass + Nodule"], {"Mass": ["Mass"], "Any": ["Mass", "Nodule"]}),
    ],
)
def test_entries_are_names_of_the_source_or_synonyms(entries, expected):
    assert names_of(read_choices(entries, NIH_FINDINGS)) == expected


def test_a_finding_whose_name_looks_like_a_merger_keeps_it():
    findings = ["a=b+c", "HLA-B27+", "b", "c"]
    chosen = read_choices(["a=b+c", "x=HLA-B27+", "y=b+c"], findings)
    assert names_of(chosen, findings) == {"a=b+c": ["a=b+c"], "x": ["HLA-B27+"], "y": ["b", "c"]}


@pytest.mark.parametrize(
    ("entries", "findings", "said"),
    [
        (
            ["Efusion"],
            NIH_FINDINGS,
            "'Efusion', which no source has; there are Atelectasis, .*; did you mean Effusion\\?$",
        ),
        (["Plural Effusion"], NIH_FINDINGS, "did you mean Pleural Effusion"),
        (["Fracture"], NIH_FINDINGS, "'Fracture', which no source has; there are Atelectasis"),
        (["X=Mass+Fracture"], NIH_FINDINGS, "'Fracture', which no source has"),
        (["Nodule/Mass"], NIH_FINDINGS, r"its parts are there, so write Nodule/Mass=Nodule\+Mass"),
        (["Nodule"], ["Nodule/Mass"], "'Nodule/Mass', which does not tell Nodule from its other parts"),
        (["Mass", "mass"], NIH_FINDINGS, "'Mass' and 'mass' differ only by case.*rename one in etl.findings"),
        (["Effusion", "Pleural Effusion"], NIH_FINDINGS, "which are both Effusion: keep one"),
        (["A=Mass+Nodule", "B=Nodule+Mass"], NIH_FINDINGS, "'A' and 'B', which are both Mass [+] Nodule"),
        (["mean=Mass"], NIH_FINDINGS, "'mean' is what reports.*in etl.findings"),
        (["=Mass"], NIH_FINDINGS, "'=Mass', expected a name, or NAME=A[+]B"),
        (["X="], NIH_FINDINGS, "expected a name, or NAME=A[+]B"),
        (["X=Mass+"], NIH_FINDINGS, "expected a name, or NAME=A[+]B"),
        (["infiltrates"], ["Infiltrate", "Infiltration"], "may be 'Infiltrate' or 'Infiltration': write"),
    ],
)
def test_entries_that_cannot_be_meant_are_refused_with_a_way_out(entries, findings, said):
    with pytest.raises(InputError, match=said):
        read_choices(entries, findings)


def test_a_name_that_no_table_can_have_can_be_renamed(tmp_path):
    (tmp_path / "labels.csv").write_text("image,patient,mean,Edema,edema\n1.png,1,1,0,1\n")
    (tmp_path / "1.png").touch()
    with pytest.raises(InputError, match="'mean' is what reports.*--etl.findings"):
        read_manifest(tmp_path, Etl(format="csv"))
    manifest = read_manifest(tmp_path, Etl(format="csv", findings=["Average=mean", "Edema", "Edema 2=edema"]))
    assert manifest.images.findings[0].tolist() == [1, 0, 1]


def test_lists_with_labels_are_of_the_source_findings(nih_folder, tmp_path):
    for split, patients in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
        labels = "1 0 1" + " 0" * 11
        lines = [f"{row[0]} {labels}" for row in nih_folder.rows if int(row[3]) in patients]
        (tmp_path / f"{split}_list.txt").write_text("\n".join(lines))
    manifest = read(nih_folder, "Effusion", "Mass", split="lists", split_lists=str(tmp_path))
    assert present(manifest)["00000004_000.png"] == ["Effusion"]


def test_dicom_files_without_labels_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcdef")
    for number in range(4):
        film = build(TWO, PatientID=f"P{number}" if number else "", SOPInstanceUID=f"1.2.{number}", Modality="CR")
        (tmp_path / f"{number}.dcm").write_bytes(written(film))
    settings = Etl(format="dicom", findings=["Effusion", "Lesion=Mass+Nodule"])
    images = read_manifest(tmp_path, settings, InlineWorkers()).images
    assert len(images) == 4
    labels = images.findings[images.reason.isna()]
    assert [np.isnan(values).tolist() for values in labels] == [[True, True]] * 3
