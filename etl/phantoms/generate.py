"""Generates a folder of radiographs in the layout of NIH ChestX-ray14 or by class, complete or not at all.

images/NNNNNNNN_FFF.png     square 8-bit grey films
masks/NNNNNNNN_FFF.png      their lungs, white on black, if phantoms.masks asks for them
Data_Entry_2017_v2020.csv   labels, follow-up, patient, age, sex, view
BBox_List_2017.csv          boxes of the findings on the films of the test list, as in NIH's, or on all
train_val_list.txt, test_list.txt
phantoms.json               the settings that made the folder; its presence means that the folder is complete

With phantoms.layout classes: train|val|test/CLASS/NNNNNNNN_FFF.png, films with one finding or none, split by patient.
"""

import csv
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2

from conf.errors import InputError
from conf.progress import track
from conf.settings import Phantoms
from conf.writing import atomic_folder, write_json
from etl.contract.schema import NO_FINDING, PHANTOMS_FILE
from etl.phantoms.cohort import Study, draw_cohort
from etl.phantoms.film import Box, draw_lungs, render
from etl.phantoms.hospitals import HOSPITALS, Hospital
from etl.sources.published.nih import BOX_FRAME_PX

GENERATOR_VERSION = 6
"""raised whenever the films change, so that older folders are generated again"""
MASKS = "masks"
"""folder of the masks, below that of the phantoms"""
VAL_PATIENTS = 8
"""with layout classes, one in this many of the patients outside test is in val"""
LABEL_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
BOX_NAMES = {"Infiltration": "Infiltrate"}
"""name in the label file -> name in NIH's box file, for the one finding where they differ"""
# From NIH's most common detectors.
ORIGINALS = {True: (2500, 2048, 0.168, 0.168), False: (2992, 2991, 0.143, 0.143)}
"""whether AP (bedside) -> width and height in pixels and pixel spacing in mm, x and y, of the original film"""


def generate_phantoms(folder: Path, settings: Phantoms) -> None:
    """Generates the phantoms of these settings in `folder`; returns at once if they are already there.

    The same settings give the same bytes, whatever the number of processes. The folder appears complete or not at all.
    Raises InputError, and touches nothing, if `folder` holds anything that was not made here.
    """
    folder = Path(folder)
    made_by = {"generator_version": GENERATOR_VERSION, **asdict(settings)}
    for name, first in (("layout", "nih"), ("hospital", "a"), ("boxes", "test"), ("masks", False)):
        # Left out, so that folders made before the setting existed still match.
        if made_by[name] == first:
            del made_by[name]
    if _made_by(folder) == made_by:
        return
    with atomic_folder(folder) as building:
        write_films(building, settings)
        write_json(building / PHANTOMS_FILE, made_by)


def _made_by(folder: Path) -> dict | None:
    """The settings that made the folder; None if it is absent or empty. Raises InputError if it was not made here."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(
            f"{folder} is a file, expected a folder for the phantoms: move it away or choose another workspace"
        )
    if (folder / PHANTOMS_FILE).exists():
        return json.loads((folder / PHANTOMS_FILE).read_text(encoding="utf-8"))
    if any(folder.iterdir()):
        raise InputError(
            f"{folder} holds files but no {PHANTOMS_FILE}, so it was not made by this generator and is left alone: "
            "move it away, choose another workspace, or, if it is a dataset of yours, give it as etl.source"
        )
    return None


def write_films(folder: Path, settings: Phantoms) -> None:
    """Writes all files except phantoms.json into an existing folder, on all cores."""
    hospital = HOSPITALS[settings.hospital]
    cohort = draw_cohort(settings.seed, settings.num_images, hospital)
    if settings.layout == "classes":
        cohort = [study for study in cohort if len(study.findings) <= 1]
    place = place_by_class if settings.layout == "classes" else place_in_images
    for parent in {place(study).parent for study in cohort}:
        (folder / parent).mkdir(parents=True)
    if settings.masks:
        (folder / MASKS).mkdir()
    write = partial(write_film, folder, place, settings, hospital)
    # spawn: a fork of a process with a running JVM gateway or OpenMP threads can hang.
    context = multiprocessing.get_context("spawn")
    num_workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=start_worker) as pool:
        films = pool.map(write, cohort, chunksize=8)
        boxes = list(track(films, "phantoms", len(cohort)))
    if settings.layout == "nih":
        boxes_of = zip(cohort, boxes, strict=True)
        boxed = [found if study.test or settings.boxes == "all" else [] for study, found in boxes_of]
        write_tables(folder, cohort, boxed, settings.size_px)


def place_in_images(study: Study) -> Path:
    """The path of the study's film below the folder, in NIH's layout."""
    return Path("images", study.image_id)


def place_by_class(study: Study) -> Path:
    """The path of the study's film below the folder: split, class, name. Patient numbers are in random order."""
    split = "test" if study.test else "train" if study.patient % VAL_PATIENTS else "val"
    return Path(split, study.findings[0] if study.findings else NO_FINDING, study.image_id)


def start_worker() -> None:
    """Keeps a worker to one core and ends it with its parent: an orphan would write into a folder being removed."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    cv2.setNumThreads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def write_film(
    folder: Path, place: Callable[[Study], Path], settings: Phantoms, hospital: Hospital, study: Study
) -> list[Box]:
    """Renders and writes one study's PNG, and its mask if the settings ask for it; returns its boxes."""
    drawn = ((settings.seed, study.patient, study.follow_up), study.female, study.ap, study.findings, settings.size_px)
    film, boxes = render(*drawn, hospital)
    # Grain does not compress by matching strings: Huffman codes alone are smaller and twice as fast. A compression
    # level as well would make OpenCV try every filter on every row.
    _, encoded = cv2.imencode(".png", film, (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY))
    (folder / place(study)).write_bytes(encoded)
    if settings.masks:
        (folder / MASKS / study.image_id).write_bytes(cv2.imencode(".png", draw_lungs(*drawn))[1])
    return boxes


def write_tables(folder: Path, cohort: list[Study], boxes: list[list[Box]], size_px: int) -> None:
    """Writes the label file, the box file and the two lists. boxes: those that the box file lists, per study."""
    scale = BOX_FRAME_PX / size_px
    with open(folder / "Data_Entry_2017_v2020.csv", "w", encoding="utf-8", newline="") as file:
        file.write(LABEL_HEADER + "\n")
        csv.writer(file, lineterminator="\n").writerows(
            (
                study.image_id,
                "|".join(study.findings) or NO_FINDING,
                study.follow_up,
                study.patient,
                study.age_years,
                "F" if study.female else "M",
                "AP" if study.ap else "PA",
                *ORIGINALS[study.ap],
            )
            for study in cohort
        )
    with open(folder / "BBox_List_2017.csv", "w", encoding="utf-8", newline="") as file:
        file.write(BOX_HEADER + "\n")
        csv.writer(file, lineterminator="\n").writerows(
            (study.image_id, BOX_NAMES.get(box.finding, box.finding), *(scale * edge for edge in box.edges), "", "", "")
            for study, found in zip(cohort, boxes, strict=True)
            for box in found
        )
    for name, test in (("train_val_list.txt", False), ("test_list.txt", True)):
        lines = [f"{study.image_id}\n" for study in cohort if study.test == test]
        (folder / name).write_text("".join(lines), encoding="utf-8")
