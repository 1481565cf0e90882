"""Chooses the reader for a source, leaves out the images that the settings exclude, and chooses the findings."""

import csv
from dataclasses import replace

import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.cluster.workers import SparkWorkers
from etl.contract.schema import last_name
from etl.contract.storage import is_folder, locate
from etl.contract.vocabulary import check_vocabulary
from etl.sources.class_folder import read_class_folder
from etl.sources.dicom_folder import read_dicom_folder
from etl.sources.film_masks import add_masks
from etl.sources.findings import choose_findings
from etl.sources.label_table import read_label_table
from etl.sources.manifest import Manifest, sha256_of
from etl.sources.published.chexpert import read_chexpert
from etl.sources.published.experts import read_experts
from etl.sources.published.kermany import read_kermany
from etl.sources.published.mimic import read_mimic
from etl.sources.published.nih import read_nih
from etl.sources.published.padchest import read_padchest
from etl.sources.published.rsna import read_rsna
from etl.sources.published.siim import read_siim
from etl.sources.published.vindr import read_vindr
from etl.sources.split import LISTS, SEE_PATHS
from etl.sources.tables.file import read_lines

READERS = {
    "nih": read_nih,
    "chexpert": read_chexpert,
    "csv": read_label_table,
    "classes": read_class_folder,
    "padchest": read_padchest,
    "mimic": read_mimic,
    "kermany": read_kermany,
    "experts": read_experts,
}
ASKING_TAGS = {"dicom": read_dicom_folder, "vindr": read_vindr, "rsna": read_rsna, "siim": read_siim}
"""readers that let Spark's workers read the tags of DICOM files"""


def read_manifest(source: UPath, settings: Etl, workers: SparkWorkers | None = None) -> Manifest:
    """Reads the manifest of `source`, which has the format settings.format, without decoding any image.

    workers: read the tags of DICOM files; other formats need none. Raises InputError for a missing folder, a store that
    does not answer, and any fault that the format's reader finds.
    """
    if not is_folder(source):
        raise InputError(f"no source folder at {source}: give it with --etl.source (see README, real radiographs)")
    if settings.format in ASKING_TAGS:
        manifest = ASKING_TAGS[settings.format](source, settings, workers)
    else:
        manifest = READERS[settings.format](source, settings)
    images = manifest.images
    known = set(manifest.names)
    for file in map(locate, settings.exclude):
        lines = read_lines(file, "list of images to leave out", "check etl.exclude")
        # The known names include those of images that are absent today.
        names = {line: _named(line, known) for line in lines}
        listed = images.image_id.isin([first for first, _ in names.values()])
        unknown = [line for line in lines if names[line][0] is None]
        if lines and len(unknown) == len(lines):
            raise InputError(
                f"none of the {len(lines)} lines of {file}, such as {lines[0]!r}, names an image of the source, such "
                f"as {images.image_id.iloc[0]!r}: fix the list{SEE_PATHS * bool(manifest.identities)}, or remove it "
                "from etl.exclude"
            )
        _leave_out(images, listed, f"listed in {file.name}")
        if unknown:
            manifest.notes.append(
                f"{len(unknown):,} of {counted(len(lines), 'line')} of {file.name} named no image, such as "
                f"{unknown[0]!r}"
            )
        if more := [line for line in lines if names[line][1]]:
            manifest.notes.append(
                f"of {counted(len(more), 'line')} of {file.name} with several images, such as {more[0]!r}, only "
                "the first image is left out: write one per line"
            )
        manifest.sha256[file.name] = sha256_of(file)
    if settings.split == "lists":
        folder = locate(settings.split_lists)
        manifest.sha256.update({name: sha256_of(folder / name) for name in LISTS.values()})
    if settings.views:
        unwanted = ~images["view"].isin(settings.views)
        _leave_out(images, unwanted, "view " + images["view"].fillna("unknown") + ", not in etl.views")
    manifest = choose_findings(manifest, settings.findings)
    # After the choice, which can rename what is wrong in the source.
    check_vocabulary(manifest.findings)
    if settings.masks:
        manifest = add_masks(manifest, source, settings)
    name = last_name(str(source))
    return replace(manifest, images=manifest.images.assign(source=name), sources={name: settings})


def _named(line: str, known: set[str]) -> tuple[str | None, list[str]]:
    """The image that a line names, and the others that it seems to name: its further cells, or all of its words.

    The name is the line, which may contain spaces and commas, else its first cell, else its first word.
    """
    if line in known:
        return line, []
    cells, words = [cell.strip() for cell in next(csv.reader([line]))], line.split()
    first = next((name for name in (cells[0], words[0], *cells[0].split()[:1]) if name in known), None)
    others = [name for name in (words if known.issuperset(words) else cells)[1:] if name in known]
    return first, others if first else []


def _leave_out(images: pd.DataFrame, which: pd.Series, reason: str | pd.Series) -> None:
    """Sets the reason of these images if they have none yet."""
    which = which & images.reason.isna()
    images.loc[which, "reason"] = reason if isinstance(reason, str) else reason[which]
