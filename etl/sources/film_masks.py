"""Finds the files that show the lungs of each film: masks of the user's, or those of phantoms."""

from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.images.kinds import SUFFIXES
from etl.contract.listing import list_files
from etl.contract.storage import is_folder, is_local, locate, located
from etl.sources.manifest import Manifest
from etl.sources.masks import without_mask, words_of


def add_masks(manifest: Manifest, source: UPath, settings: Etl) -> Manifest:
    """The manifest whose images have a column `masks`: the addresses of each film's masks, none if it has none.

    A file is a mask of the film whose name it has, with or without words such as `mask`, `left` or `lung`; several of
    one film, such as one per lung, are one mask together. A changed mask changes the image's file_version, so that
    both are read again. source: relative to which settings.masks is. Raises InputError if there is no such folder, if
    no file in it has the name of a film, or if a file has the names of two films.
    """
    folder = folder_of_masks(source, settings.masks)
    if not is_folder(folder):
        raise InputError(f"no folder of masks at {folder}: give one below the source, or a whole path, by --etl.masks")
    files = list_files(folder)
    files = files[files.clutter.isna() & files.index.map(_is_image)]
    names: dict[tuple[str, ...], set[str]] = defaultdict(set)
    # By its file: the image of a DICOM file has another name.
    for image, path in zip(manifest.images.image_id, manifest.images.path, strict=True):
        names[tuple(words_of(PurePosixPath(path if isinstance(path, str) else image).stem))].add(image)
    found: dict[str, list[str]] = defaultdict(list)
    others = []
    for name in files.index:
        stem = PurePosixPath(name).stem
        images = set().union(*(names.get(words, set()) for words in {tuple(words_of(stem)), *without_mask(stem)}))
        if len(images) > 1:
            one, other, *_ = sorted(images)
            raise InputError(f"{folder / name} may be the mask of {one} and of {other}: name it after one of them")
        for image in images:
            found[image].append(name)
        others += [] if images else [name]
    if not found:
        raise InputError(
            f"no file below {folder} has the name of a film, such as {manifest.images.image_id.iloc[0]}: name each "
            "mask after its film, or leave etl.masks out"
        )
    return _with_masks(manifest, files, found, others)


def folder_of_masks(source: UPath, masks: str) -> UPath:
    """The folder that etl.masks names: below the source if it is a relative path."""
    is_whole = "://" in masks or masks.startswith(("/", "~"))
    return located("etl.masks", masks) if is_whole or not is_local(source) else locate(str(source / masks))


def _with_masks(manifest: Manifest, files: pd.DataFrame, found: dict[str, list[str]], others: list[str]) -> Manifest:
    images = manifest.images.copy()
    of_image = [found.get(image, []) for image in images.image_id]
    images["masks"] = pd.Series([files.path[names].tolist() for names in of_image], images.index, dtype=object)
    versions = (" ".join(files.file_version[names]) for names in of_image)
    images["file_version"] = [
        f"{version}, mask {mask}" if mask else version
        for version, mask in zip(images.file_version, versions, strict=True)
    ]
    notes = list(manifest.notes)
    if others:
        notes.append(f"{counted(len(others), 'file')} of etl.masks, such as {others[0]}, named no film of the table")
    return replace(manifest, images=images, notes=notes)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES
