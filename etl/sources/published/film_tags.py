"""The tags of those films of a collection that are DICOM files: age, sex, view and size."""

from pathlib import PurePosixPath

import pandas as pd

from conf.words import counted
from etl.cluster.workers import SparkWorkers
from etl.contract.images.dicom.tags import Tags
from etl.contract.images.kinds import SUFFIXES
from etl.sources.dicom_files import read_files

DICOM_ENDINGS = (".dcm", ".dicom", ".dic")
NO_TAGS = Tags("", "", "", "", "", "")


def read_film_tags(found: pd.Series, files: pd.DataFrame, workers: SparkWorkers) -> tuple[pd.DataFrame, list[str]]:
    """What the tags of each film say, with the index of `found` and a column per field of Tags; and notes.

    found: the file of each image, None if it is absent. files: from list_files. A film that is no DICOM file, or that
    cannot be read, has empty tags; the latter goes to quarantine later, with the reason.
    """
    wanted = found.dropna()
    wanted = wanted[[_may_be_dicom(file) for file in wanted]]
    results = read_files(files.path[wanted], workers) if len(wanted) else pd.Series(dtype=object)
    of_file = {file: result for file, result in results.items() if isinstance(result, Tags)}
    tags = pd.DataFrame([vars(of_file.get(file, NO_TAGS)) for file in found], found.index)
    damaged = len(results) - len(of_file)
    return tags, [f"the tags of {counted(damaged, 'film')} cannot be read"] if damaged else []


def _may_be_dicom(file: str) -> bool:
    """By its ending: pictures in other formats are not opened."""
    ending = PurePosixPath(file).suffix.lower()
    return ending in DICOM_ENDINGS or ending not in SUFFIXES
