"""The manifest of the chest films of Kermany et al. (Cell 172, 2018): children of one to five years, in class folders.

train/NORMAL/IM-0115-0001.jpeg, NORMAL2-IM-0027-0001.jpeg
train/PNEUMONIA/person1_bacteria_2.jpeg, person3_virus_15.jpeg
and the same in test/ and val/ (chest_xray.zip); or with names such as BACTERIA-1008087-0001.jpeg (Mendeley Data,
version 3)

The name of a file tells the patient, and whether bacteria or a virus caused the pneumonia. All films are AP views, as
the publication says. Nothing says whether person1 in train/ and person1 in test/ are one child, so a number counts as
one, and etl.split hashed keeps its films together.
"""

import re

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.listing import list_files
from etl.contract.words import split_of
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.split import assign_split, find_leaks

FINDINGS = ["PNEUMONIA", "bacteria", "virus"]
"""the class, and the two causes that file names tell; NORMAL has none of them"""
NAMES = (
    re.compile(r"(?P<patient>person\d+)_(?P<cause>bacteria|virus)_\d+\.jpe?g", re.IGNORECASE),
    re.compile(r"(?P<patient>(NORMAL2-)?IM-\d+)-\d+(-\d+)?\.jpe?g", re.IGNORECASE),
    re.compile(r"(?P<cause>BACTERIA|VIRUS|NORMAL)-(?P<patient>\d+)-\d+\.jpe?g", re.IGNORECASE),
)
CLASSES = ("NORMAL", "PNEUMONIA")


def read_kermany(source: UPath, settings: Etl) -> Manifest:
    """Locates the films by their folders and names, without opening any.

    Files with other names, or in other folders than NORMAL and PNEUMONIA, are left out and counted. Raises InputError
    if there is no such film, if name and class contradict each other, or, with etl.split source, if a patient is in
    folders of two splits.
    """
    files = list_files(source)
    found = [(file, _understand(file)) for file in files.index[files.clutter.isna()]]
    known = pd.DataFrame([{"file": file, **said} for file, said in found if said])
    if known.empty:
        raise InputError(
            f"no film among the {counted(len(files), 'file')} below {source}: expected folders NORMAL and PNEUMONIA "
            "with names such as person1_bacteria_2.jpeg and IM-0115-0001.jpeg: check --etl.source and --etl.format"
        )
    wrong = known[(known.cause == "NORMAL") != (known["class"] == "NORMAL")]
    if len(wrong):
        raise InputError(
            f"{source / wrong.file.iloc[0]} is in the folder {wrong['class'].iloc[0]}, but its name tells that of "
            f"{'a healthy child' if wrong.cause.iloc[0] == 'NORMAL' else 'pneumonia'}: move it"
        )
    empty = pd.Series("", known.index)
    labels = [(known["class"] == "PNEUMONIA"), *((known.cause == cause.upper()) for cause in FINDINGS[1:])]
    rows = build_rows(
        source,
        images=known.file,
        patients=known.patient,
        follow_up=empty,
        age=empty,
        sex=empty,
        view=empty.replace("", "AP"),
        findings=list(np.stack(labels, axis=1).astype(np.float32)),
    )
    own = known.split.map({word: split_of(word) or None for word in known.split.unique()})
    own = own if settings.split == "source" and own.notna().all() else None
    if own is not None and (leaks := find_leaks(pd.DataFrame({"patient_id": rows.patient_id, "split": own}))):
        one, other = known.file[rows.patient_id == leaks[0]].groupby(own).first()[:2]
        raise InputError(
            f"{counted(len(leaks), 'patient is', 'patients are')} in folders of two splits below {source}, such as "
            f"{one!r} and {other!r}: nothing says whether these are one child, so choose --etl.split hashed, which "
            "keeps all films of a number in one split"
        )
    rows = assign_split(rows, settings, own)
    rows["file"] = known.file
    notes = ["the names of the files tell the patients: a number counts as one child"]
    why = "no film by its name and folder"
    return assemble(rows, files, list(FINDINGS), [], f"films below {source}", left_out=why, notes=notes)


def _understand(file: str) -> dict[str, str] | None:
    """The split's folder, the class, the patient and the cause (BACTERIA, VIRUS or NORMAL); None for another file."""
    *folders, name = file.split("/")
    fits = next(filter(None, (pattern.fullmatch(name) for pattern in NAMES)), None)
    if fits is None or not folders or folders[-1].upper() not in CLASSES:
        return None
    said = fits.groupdict()
    return {
        "split": folders[-2] if len(folders) > 1 else "",
        "class": folders[-1].upper(),
        "patient": said["patient"].lower(),
        "cause": (said.get("cause") or "NORMAL").upper(),
    }
