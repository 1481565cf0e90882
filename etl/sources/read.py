"""Chooses the reader for a source and leaves out the images that the settings exclude."""

import csv

import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.cluster.workers import SparkWorkers
from etl.contract.storage import is_folder, locate
from etl.sources.chexpert import read_chexpert
from etl.sources.class_folder import read_class_folder
from etl.sources.dicom_folder import read_dicom_folder
from etl.sources.label_file import read_lines
from etl.sources.label_table import read_label_table
from etl.sources.manifest import Manifest, sha256_of
from etl.sources.nih import read_nih
from etl.sources.split import LISTS

SEE_PATHS = " (dicom_paths.csv in the workspace of an earlier run has the names of DICOM files)"
READERS = {"nih": read_nih, "chexpert": read_chexpert, "csv": read_label_table, "classes": read_class_folder}


def read_manifest(source: UPath, settings: Etl, workers: SparkWorkers | None = None) -> Manifest:
    """Reads the manifest of `source`, which has the format settings.format, without decoding any image.

    workers: read the tags of DICOM files; other formats need none. Raises InputError for a missing folder, a store that
    does not answer, and any fault that the format's reader finds.
    """
    if not is_folder(source):
        raise InputError(f"no source folder at {source}: give it with --etl.source (see README, real radiographs)")
    if settings.format == "dicom":
        manifest = read_dicom_folder(source, settings, workers)
    else:
        manifest = READERS[settings.format](source, settings)
    images = manifest.images
    known = set(manifest.names)
    for file in map(locate, settings.exclude):
        lines = read_lines(file, "list of images to leave out", "check etl.exclude")
        names = [_names_in(line) for line in lines]
        listed = images.image_id.isin(set().union(*names))
        # The known names include those of images that are absent today.
        unknown = [line for line, possible in zip(lines, names, strict=True) if possible.isdisjoint(known)]
        if lines and len(unknown) == len(lines):
            raise InputError(
                f"none of the {len(lines)} lines of {file}, such as {lines[0]!r}, names an image of the source, such "
                f"as {images.image_id.iloc[0]!r}: fix the list{SEE_PATHS * bool(manifest.identities)}, or remove it "
                "from etl.exclude"
            )
        _leave_out(images, listed, f"listed in {file.name}")
        if unknown:
            manifest.notes.append(
                f"{len(unknown):,} of {len(lines):,} lines of {file.name} name no image, such as {unknown[0]!r}"
            )
        manifest.sha256[file.name] = sha256_of(file)
    if settings.split == "lists":
        folder = locate(settings.split_lists)
        manifest.sha256.update({name: sha256_of(folder / name) for name in LISTS.values()})
    if settings.views:
        unwanted = ~images["view"].isin(settings.views)
        _leave_out(images, unwanted, "view " + images["view"].fillna("unknown") + ", not in etl.views")
    return manifest


def _names_in(line: str) -> set[str]:
    """What may be the image's name: the line, which may contain spaces and commas, its first cell, its first word."""
    names = {line, next(csv.reader([line]))[0].strip()}
    return names | {name.split()[0] for name in names if name}


def _leave_out(images: pd.DataFrame, which: pd.Series, reason: str | pd.Series) -> None:
    """Sets the reason of these images if they have none yet."""
    which = which & images.reason.isna()
    images.loc[which, "reason"] = reason if isinstance(reason, str) else reason[which]
