"""What is read from a DICOM file besides its pixels."""

import numpy as np
import pydicom
import pytest

from etl.contract.images.dicom.tags import Tags, read_tags
from tests.etl.dicom_files import TWO, build, written


def test_tags_are_read():
    dataset = build(TWO, StudyDate="20240307", StudyTime="091502.123", PatientAge="058Y", PatientSex="F")
    dataset.ViewPosition = "LL"
    size = {"height_px": 2, "width_px": 2}
    assert read_tags(written(dataset)) == Tags("P7", "1.2.3", "20240307091502", "058Y", "F", "LATERAL", **size)
    assert read_tags(written(build(TWO))) == Tags("P7", "1.2.3", "", "", "", "", **size)
    turned = read_tags(written(build(np.zeros((2, 3), np.uint8), PatientOrientation=["R", "H"])))
    assert (turned.height_px, turned.width_px, turned.orientation) == (2, 3, 3)
    assert read_tags(written(build(TWO, StudyDate="20240307", StudyTime="0915"))).study_time == "20240307091500"
    assert read_tags(written(build(TWO, PatientSex="O"))).sex == ""


@pytest.mark.parametrize(
    ("birth", "study", "age"),
    [
        ("19640308", "20240307", "059Y"),
        ("19640307", "20240307", "060Y"),
        ("20250101", "20240307", ""),
        ("", "20240307", ""),
        # Dates that stand for unknown ones.
        ("19000101", "20240307", ""),
        ("19010101", "20240307", ""),
        ("18000101", "20240307", ""),
        ("19000101", "19000101", ""),
        ("20240101", "20240101", "000Y"),
        ("19640307", "19640307", "000Y"),
    ],
)
def test_an_absent_age_is_computed(birth, study, age):
    tags = read_tags(written(build(TWO, PatientBirthDate=birth, StudyDate=study)))
    assert (tags.age, tags.strange) == (age, ("age",) if birth[:2] in ("18", "19") and birth[4:] == "0101" else ())
    said = read_tags(written(build(TWO, PatientBirthDate=birth, StudyDate=study, PatientAge="061Y")))
    assert (said.age, said.strange) == ("061Y", ())


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "LLD"}, ""),  # decubitus, taken from the front
        ({"ViewPosition": "RAO", "PatientOrientation": ["A", "F"]}, ""),
        ({"PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"PatientOrientation": ["F", "A"]}, "LATERAL"),
        ({"PatientOrientation": ["H", "P"]}, "LATERAL"),
        ({"PatientOrientation": ["FR", "PR"]}, "LATERAL"),
        ({"PatientOrientation": "P"}, "LATERAL"),
        ({"PatientOrientation": ["L", "P"]}, ""),  # a slice, seen from the feet
        ({"PatientOrientation": ["F", "L"]}, ""),
        ({"ViewPosition": "RAO", "PatientOrientation": ["F", "A"]}, ""),
        ({"PatientOrientation": ["L", "F"]}, ""),
        ({"PatientOrientation": ""}, ""),
        ({"ViewCodeSequence": "antero-posterior"}, "AP"),
        ({"ViewCodeSequence": "left lateral", "PatientOrientation": ["L", "F"]}, "LATERAL"),
    ],
)
def test_the_view_is_found(tags, view):
    if "ViewCodeSequence" in tags:
        code = pydicom.Dataset()
        code.CodeMeaning = tags["ViewCodeSequence"]
        tags = {**tags, "ViewCodeSequence": [code]}
    assert read_tags(written(build(TWO, **tags))).view == view


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(
    ("tag", "field", "yes", "no", "what"),
    [
        (
            "PresentationIntentType",
            "for_processing",
            ("FOR PROCESSING", "FOR_PROCESSING", "for processing", "FORPROCESSING", "For-Processing "),
            ("FOR PRESENTATION", "FOR_PRESENTATION", "for presentation", ""),
            "presentation intent",
        ),
        (
            "BurnedInAnnotation",
            "burned_in",
            ("YES", "yes", "Y", "TRUE", "True", "YES ", " Yes", "1"),
            ("NO", "no", "N", "FALSE", "0", " NO", ""),
            "burned-in annotation",
        ),
    ],
)
def test_words_for_yes_and_no(tag, field, yes, no, what):
    def read(word: str) -> Tags:
        return read_tags(written(build(TWO, **{tag: word})))

    assert [getattr(read(word), field) for word in (*yes, *no)] == [True] * len(yes) + [False] * len(no)
    assert {read(word).strange for word in (*yes, *no)} == {()}
    assert [(getattr(read(word), field), read(word).strange) for word in ("PERHAPS", "YESNO", "???x")] == [
        (False, (what,))
    ] * 3


def test_tags_may_lack_the_patient_and_the_instance():
    dataset = build(TWO)
    content = written(dataset)

    def without(tag):
        return content.replace(dataset[tag].value.encode(), b"\x00" * len(dataset[tag].value))

    assert read_tags(content).patient == "P7"
    assert read_tags(without("PatientID")).patient == ""
    assert read_tags(without("SOPInstanceUID")).instance == ""
