"""Reads the tags of DICOM files on the workers, and sorts out which of the files are films to read."""

import os
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial

import numpy as np
import pandas as pd

from conf.settings import Dicom
from etl.cluster.workers import SparkWorkers
from etl.contract.ahead import fetch_ahead
from etl.contract.images.dicom.elements import looks_like_dicom
from etl.contract.images.dicom.tags import Tags, read_tags
from etl.contract.images.misfits import find_misfit
from etl.contract.images.pixels import BadImage
from etl.contract.storage import read_bytes
from etl.contract.words import says_nothing
from etl.sources.tables.cells import normalise_patients

# Tags come before the pixels; few files have so many tags that more must be read.
HEAD_BYTES = 1 << 20
FILES_PER_TASK = 256
NO_INSTANCE = "no SOPInstanceUID: give each file one, or use --etl.format csv with a table that names the files by path"
DUPLICATE = "duplicate: same SOP Instance UID as another file"


def read_files(paths: pd.Series, workers: SparkWorkers) -> pd.Series:
    """What the workers find in each DICOM file: its Tags, or the reason why they cannot be used. Index: the files."""
    chunks = [list(paths.iloc[start : start + FILES_PER_TASK]) for start in range(0, len(paths), FILES_PER_TASK)]
    parts = workers.map(_read_all, chunks, [len(chunk) for chunk in chunks], "DICOM tags")
    return pd.Series([result for part in parts for result in part], paths.index, dtype=object).dropna()


def sort_out(
    found: pd.Series, wanted: Dicom, preferred: Collection[str] = ()
) -> tuple[pd.DataFrame, dict[str, str], dict[str, str]]:
    """The Tags of the films to read, a row per file; file -> its fault; file -> why it is none of these films.

    found: from read_files. If several files have the same SOP Instance UID, a preferred one counts, else the first one
    that names a patient, or else the first.
    """
    usable = found.map(lambda result: isinstance(result, Tags))
    faults = found[~usable].to_dict()
    misfits = found[usable].map(partial(find_misfit, wanted=wanted)).dropna().to_dict()
    films = found[usable].drop(list(misfits))
    tags = pd.DataFrame([vars(film) for film in films], films.index, [field.name for field in fields(Tags)])
    tags["patient"] = normalise_patients(tags.patient.astype(str))
    order = np.lexsort((tags.patient.map(says_nothing).to_numpy(bool), ~tags.index.isin(preferred)))
    ordered = tags.iloc[order]
    again = ordered.index[ordered.instance.duplicated()]
    faults |= dict.fromkeys(again, DUPLICATE)
    return tags.drop(index=again), faults, misfits


def _read_all(paths: list[str]) -> list[Tags | str | None]:
    """Each file's tags, the reason why they cannot be used, or None if the file is not DICOM."""
    return list(map(_read_one, paths, fetch_ahead(paths, HEAD_BYTES)))


def _read_one(path: str, read_head: Callable[[], bytes]) -> Tags | str | None:
    try:
        head = read_head()
        if not looks_like_dicom(head):
            return None
        is_cut = len(head) >= HEAD_BYTES
        try:
            return _with_instance(read_tags(head, is_cut))
        except BadImage as reason:
            return _with_instance(read_tags(read_bytes(path))) if is_cut else str(reason)
    except BadImage as reason:
        return str(reason)
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno) if error.errno else error}"


def _with_instance(tags: Tags) -> Tags:
    """These tags. Raises BadImage without a SOP Instance UID, after which this format names the image."""
    if not tags.instance:
        raise BadImage(NO_INSTANCE)
    return tags
