"""What is read from a DICOM file besides its pixels, and how patients are named."""

import pydicom
import pytest

from conf.errors import InputError
from etl.contract.images.pixels import BadImage
from etl.sources.dicom_tags import Tags, read_tags
from etl.sources.pseudonyms import hide, read_salt
from tests.etl.dicom_files import TWO, build, written


def test_tags_are_read():
    dataset = build(TWO, StudyDate="20240307", StudyTime="091502.123", PatientAge="058Y", PatientSex="F")
    dataset.ViewPosition = "LL"
    assert read_tags(written(dataset)) == Tags("P7", "1.2.3", "20240307091502", "058Y", "F", "LATERAL")
    assert read_tags(written(build(TWO))) == Tags("P7", "1.2.3", "", "", "", "")
    assert read_tags(written(build(TWO, StudyDate="20240307", StudyTime="0915"))).study_time == "20240307091500"
    assert read_tags(written(build(TWO, PatientSex="O"))).sex == ""


@pytest.mark.parametrize(
    ("birth", "study", "age"),
    [
        ("19640308", "20240307", "059Y"),
        ("19640307", "20240307", "060Y"),
        ("20250101", "20240307", ""),
        ("", "20240307", ""),
    ],
)
def test_an_absent_age_is_computed(birth, study, age):
    assert read_tags(written(build(TWO, PatientBirthDate=birth, StudyDate=study))).age == age


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


def test_tags_need_an_instance_and_may_lack_the_patient():
    dataset = build(TWO)
    content = written(dataset)

    def without(tag):
        return content.replace(dataset[tag].value.encode(), b"\x00" * len(dataset[tag].value))

    assert read_tags(content).patient == "P7"
    assert read_tags(without("PatientID")).patient == ""
    with pytest.raises(BadImage, match="no SOPInstanceUID"):
        read_tags(without("SOPInstanceUID"))


def test_hidden_names_depend_on_the_salt():
    assert hide("P7", "a" * 16) == hide("P7", "a" * 16)
    assert len({hide(patient, salt) for patient in ("P7", "P8") for salt in ("a" * 16, "b" * 16)}) == 4
    # RFC 4231, case 2, cut to 80 bits.
    assert hide("what do ya want for nothing?", "Jefe") == "5bdcc146bf60754e6a04"


def test_the_salt_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcdef")
    assert read_salt() == "0123456789abcdef"
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcde")
    with pytest.raises(InputError, match="15 characters.*secrets.token_hex.*logged with every run"):
        read_salt()
    monkeypatch.delenv("CHEXSCALE_SALT")
    with pytest.raises(InputError, match="0 characters"):
        read_salt()
