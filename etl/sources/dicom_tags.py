"""What a DICOM file says of its image: patient, study, age, sex, view."""

import re
from dataclasses import dataclass
from datetime import datetime

import pydicom

from etl.contract.images.decode import BadImage
from etl.contract.images.dicom_file import damage_is_bad_image, read_dicom

# View Position (PS3.3 C.8.1.1) and the meanings of View Code Sequence (PS3.16 CID 4010), letters only.
# Oblique and decubitus views are none of these.
VIEWS = {
    **dict.fromkeys(("PA", "POSTEROANTERIOR"), "PA"),
    **dict.fromkeys(("AP", "ANTEROPOSTERIOR"), "AP"),
    **dict.fromkeys(("LL", "RL", "LATERAL", "LEFTLATERAL", "RIGHTLATERAL"), "LATERAL"),
}
TAGS = ("PatientID", "SOPInstanceUID", "StudyDate", "StudyTime", "PatientAge", "PatientBirthDate", "PatientSex")
TAGS += ("ViewPosition", "ViewCodeSequence", "PatientOrientation")


@dataclass(frozen=True)
class Tags:
    """What a DICOM file says of its image; an empty text: unknown."""

    patient: str
    """Patient ID, as it stands; may be empty"""
    instance: str
    """SOP Instance UID"""
    study_time: str
    """YYYYMMDDhhmmss"""
    age: str
    """such as 058Y or 018M; from the dates of birth and study where there is no Patient's Age"""
    sex: str
    """F or M"""
    view: str
    """PA, AP or LATERAL"""


def read_tags(content: bytes) -> Tags:
    """The tags of a DICOM file, without its pixels. Raises BadImage where it is none or has no SOP Instance UID."""
    dataset = read_dicom(content, stop_before_pixels=True, specific_tags=list(TAGS))
    # The values of these tags tell who it is: they must not get into a reason.
    with damage_is_bad_image("damaged tags", show=False):
        cells = {tag: str(dataset.get(tag) or "").strip() for tag in TAGS}
        view = _find_view(dataset, cells["ViewPosition"])
    if not cells["SOPInstanceUID"]:
        raise BadImage("no SOPInstanceUID")
    time = re.sub(r"\D", "", cells["StudyTime"].partition(".")[0])[:6].ljust(6, "0")
    study = _parse_date(cells["StudyDate"])
    return Tags(
        patient=cells["PatientID"],
        instance=cells["SOPInstanceUID"],
        study_time=f"{study:%Y%m%d}{time}" if study else "",
        age=_find_age(cells["PatientAge"], _parse_date(cells["PatientBirthDate"]), study),
        sex=cells["PatientSex"] if cells["PatientSex"] in ("F", "M") else "",
        view=view,
    )


def _find_view(dataset: pydicom.Dataset, position: str) -> str:
    """By View Position, else View Code Sequence, else Patient Orientation: rows that run front to back are lateral."""
    named = [position, *(str(code.get("CodeMeaning")) for code in dataset.get("ViewCodeSequence") or [])]
    for name in named:
        view = VIEWS.get(re.sub("[^A-Z]", "", name.upper()))
        if view:
            return view
    orientation = dataset.get("PatientOrientation") or [""]
    return "LATERAL" if not any(named[:1]) and orientation[0][:1] in ("A", "P") else ""


def _parse_date(cell: str) -> datetime | None:
    try:
        return datetime.strptime(cell.replace(".", ""), "%Y%m%d")
    except ValueError:
        return None


def _find_age(cell: str, birth: datetime | None, study: datetime | None) -> str:
    if re.fullmatch(r"\d{1,3}[YMWD]", cell):
        return cell
    if not birth or not study or study < birth:
        return ""
    return f"{study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day)):03d}Y"
