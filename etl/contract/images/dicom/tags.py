"""What a DICOM file says about its image: patient, study, age, sex, view, and what misfits.py asks for."""

import re
from dataclasses import dataclass
from datetime import datetime

import pydicom

from etl.contract.images.dicom.elements import damage_is_bad_image, read_dicom
from etl.contract.images.orientation import UPRIGHT, patient_orientation
from etl.contract.words import canonical, sexes_of, tokens_of, view_of

TAGS = ("PatientID", "SOPInstanceUID", "StudyDate", "StudyTime", "PatientAge", "PatientBirthDate", "PatientSex")
TAGS += ("ViewPosition", "ViewCodeSequence", "PatientOrientation", "Modality", "SOPClassUID", "BodyPartExamined")
TAGS += ("PresentationIntentType", "BurnedInAnnotation", "Rows", "Columns")
# Digital X-Ray, Digital Mammography and Intra-Oral X-Ray Image Storage - For Processing (PS3.6, table A-1).
FOR_PROCESSING = tuple(f"1.2.840.10008.5.1.4.1.1.1.{kind}.1" for kind in (1, 2, 3))
# SOP Class (PS3.6, table A-1) -> modality, for files that do not name the latter.
MODALITIES = {
    f"1.2.840.10008.5.1.4.1.1.{kind}": modality
    for kind, modality in {"2": "CT", "2.1": "CT", "4": "MR", "4.1": "MR", "6.1": "US", "20": "NM", "128": "PT"}.items()
} | {"1.2.840.10008.5.1.4.1.1.1.2": "MG", "1.2.840.10008.5.1.4.1.1.12.1": "XA", "1.2.840.10008.5.1.4.1.1.12.2": "RF"}
# Plain words -> whether the film is made for processing, and whether annotations are in its pixels.
ANSWERS = {
    "PresentationIntentType": {"": False, "forpresentation": False, "forprocessing": True},
    "BurnedInAnnotation": {
        **dict.fromkeys(("", "no", "n", "false", "f", "0"), False),
        **dict.fromkeys(("yes", "y", "true", "t", "1"), True),
    },
}
# The first of January of this year or earlier stands for an unknown date of birth where dates must not be empty.
LAST_PLACEHOLDER_YEAR = 1901
WORDS = {"PresentationIntentType": "presentation intent", "BurnedInAnnotation": "burned-in annotation"}


@dataclass(frozen=True)
class Tags:
    """What a DICOM file says about its image; an empty string means unknown."""

    patient: str
    """Patient ID, unchanged; may be empty"""
    instance: str
    """SOP Instance UID; may be empty"""
    study_time: str
    """YYYYMMDDhhmmss"""
    age: str
    """as the tag has it, such as 058Y, 018M or 62; computed from the birth and study dates if the tag is empty"""
    sex: str
    """F or M; otherwise a word that is not known, as the tag has it"""
    view: str
    """PA, AP or LATERAL; otherwise a View Position that is not known, as the tag has it"""
    modality: str = ""
    """such as CR or DX"""
    body_part: str = ""
    """Body Part Examined, as the tag has it"""
    for_processing: bool = False
    """whether it is a raw image, made for processing and not for reading"""
    burned_in: bool = False
    """whether annotations, perhaps the patient's name, are in the pixels"""
    strange: tuple[str, ...] = ()
    """which of the last two the file answers with a word that is not known; age, if a placeholder stands for a date"""
    height_px: int = 0
    """rows of pixels as stored; 0: unknown"""
    width_px: int = 0
    """columns of pixels as stored; 0: unknown"""
    orientation: int = UPRIGHT
    """1 to 8, how the stored pixels are turned before they are shown, see orientation.py"""


def read_tags(content: bytes, is_cut: bool = False) -> Tags:
    """The tags of a DICOM file, without its pixels. Raises BadImage if it is not DICOM, or damaged.

    is_cut: whether these bytes are only the beginning of the file. Raises BadImage if tags may follow them.
    """
    dataset = read_dicom(content, is_cut, stop_before_pixels=True, specific_tags=list(TAGS))
    # The values of these tags identify the patient, so they must not appear in a reason.
    with damage_is_bad_image("damaged tags", show=False):
        cells = {tag: str(dataset.get(tag) or "").strip() for tag in TAGS}
        view = _find_view(dataset, cells["ViewPosition"])
        directions = dataset.get("PatientOrientation") or []
        sides = [int(cells[tag]) if cells[tag].isdigit() else 0 for tag in ("Rows", "Columns")]
    time = re.sub(r"\D", "", cells["StudyTime"].partition(".")[0])[:6].ljust(6, "0")
    study = _parse_date(cells["StudyDate"])
    age, is_placeholder = _find_age(cells["PatientAge"], _parse_date(cells["PatientBirthDate"]), study)
    answers = {tag: known.get("".join(tokens_of(cells[tag]))) for tag, known in ANSWERS.items()}
    return Tags(
        patient=cells["PatientID"],
        instance=cells["SOPInstanceUID"],
        study_time=f"{study:%Y%m%d}{time}" if study else "",
        age=age,
        sex=canonical(cells["PatientSex"], sexes_of([])),
        view=view,
        modality=cells["Modality"].upper() or MODALITIES.get(cells["SOPClassUID"], ""),
        body_part=cells["BodyPartExamined"],
        for_processing=bool(answers["PresentationIntentType"]) or cells["SOPClassUID"] in FOR_PROCESSING,
        burned_in=bool(answers["BurnedInAnnotation"]),
        strange=(*(WORDS[tag] for tag, answer in answers.items() if answer is None), *["age"] * is_placeholder),
        height_px=sides[0],
        width_px=sides[1],
        orientation=UPRIGHT if isinstance(directions, str) else patient_orientation(list(directions)),
    )


def _find_view(dataset: pydicom.Dataset, position: str) -> str:
    """The view by View Position, else View Code Sequence, else Patient Orientation.

    The rows or the columns of a lateral film run from front to back, and neither from side to side.
    """
    named = [position, *(str(code.get("CodeMeaning")) for code in dataset.get("ViewCodeSequence") or [])]
    for name in named:
        if view := view_of(name):
            return view
    directions = dataset.get("PatientOrientation") or []
    directions = [directions] if isinstance(directions, str) else directions
    letters = {str(direction).strip()[:1].upper() for direction in directions}
    is_lateral = bool(letters & {"A", "P"}) and not letters & {"L", "R"}
    return "LATERAL" if not position and is_lateral else canonical(position, view_of)


def _parse_date(cell: str) -> datetime | None:
    try:
        return datetime.strptime(cell.replace(".", ""), "%Y%m%d")
    except ValueError:
        return None


def _find_age(cell: str, birth: datetime | None, study: datetime | None) -> tuple[str, bool]:
    """The age as the tag has it, else by the dates; and whether it is unknown because a date is a placeholder."""
    if re.fullmatch(r"\d{1,3}[YMWD]?", cell) or not birth or not study or study < birth:
        return cell, False
    if birth.year <= LAST_PLACEHOLDER_YEAR and (birth.month, birth.day) == (1, 1):
        return cell, True
    return f"{study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day)):03d}Y", False
