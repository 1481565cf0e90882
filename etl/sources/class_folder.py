"""The manifest of a source with one folder per class: single-label colour images, for pre-training and other tasks.

CLASS/image              split by a hash of the path
SPLIT/CLASS/image        the folders' own split, in any of the words that etl/contract/words.py knows for splits
CLASS/SPLIT/image

An image may lie deeper. Folders are never classes if some of them look like splits.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.ahead import map_files
from etl.contract.clutter import describe_clutter
from etl.contract.images.decode import begins_like_image
from etl.contract.images.kinds import HEAD_BYTES, SUFFIXES, other_kind
from etl.contract.listing import list_files
from etl.contract.storage import read_bytes
from etl.contract.words import split_of
from etl.sources.class_layout import Layout, describe_below, some, understand_folders
from etl.sources.files import TEXTS
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.masks import describe_twins, find_masks
from etl.sources.split import NEITHER, NO_PATIENTS, assign_split


def read_class_folder(source: UPath, settings: Etl) -> Manifest:
    """Locates the images; the findings are the sorted classes, and each image has one of them.

    Each image counts as its own patient, because nothing says which images belong together. A file without an image's
    ending is opened, to see whether it begins like an image. Raises InputError for folders that cannot be understood.
    """
    files = list_files(source)
    left_out = _why_left_out(files)
    images = left_out.index[left_out.isna()]
    if images.empty:
        raise InputError(
            f"no image among the {counted(len(files), 'file')}{describe_clutter(files.clutter)} below {source}: check "
            "--etl.source and --etl.format"
        )
    folders_and_name = [image.split("/") for image in images]
    layout = understand_folders(source, folders_and_name)
    below = describe_below(source, folders_and_name, layout)
    left_out[find_masks(images, layout.below_at)] = "a mask, overlay or thumbnail of an image"
    paths = pd.Series(left_out.index[left_out.isna()], dtype=str)
    parts = paths.str.split("/")
    names = parts.str[layout.class_at]
    classes = sorted(names.unique())
    empty = _classes_of(left_out.index[left_out.notna() & files.clutter.isna()], layout) - set(classes)
    if len(classes) < 2:
        other = f"; the files of {some(empty)} are masks, overlays or no images" if empty else ""
        raise InputError(
            f"{source} holds {counted(len(paths), 'image')} in {counted(len(classes), 'class', 'classes')} "
            f"({some(classes)}{other}), expected at least two: give the folder that holds the folders of the "
            "classes, or of the splits, as --etl.source"
        )
    unknown = pd.Series("", paths.index)
    rows = build_rows(
        source,
        images=paths,
        patients=paths,
        follow_up=unknown,
        age=unknown,
        sex=unknown,
        view=unknown,
        findings=list(np.eye(len(classes), dtype=np.float32)[names.map(classes.index)]),
    )
    folders = None if layout.split_at is None else parts.str[layout.split_at]
    rows = assign_split(rows, settings, None if folders is None else folders.map(split_of))
    rows["file"] = paths
    notes = [f"the folders are {layout}; the classes are {some(classes)}"]
    if folders is not None:
        said = (f"{folder} ({split_of(folder)})" for folder in sorted(folders.unique()))
        notes.append(f"the splits are {', '.join(said)}")
    notes += [NO_PATIENTS if folders is not None or settings.split != "source" else NEITHER]
    notes += below + describe_twins(paths, layout.below_at)
    if empty:
        notes.append(f"no image is in the folders {some(empty)}, which are no classes therefore")
    searched = f"images below {source}"
    return assemble(rows, files, classes, [], searched, channels=3, left_out=left_out, notes=notes)


def _why_left_out(files: pd.DataFrame) -> pd.Series:
    """The reason why each file is no image of the source; None for an image. files: from list_files."""
    reasons = files.clutter.copy()
    named = np.array([PurePosixPath(file).suffix.lower() in SUFFIXES for file in files.index], bool)
    texts = np.array([file.lower().endswith(TEXTS) for file in files.index], bool)
    reasons[reasons.isna() & texts] = "no image"
    asked = files.path[reasons.isna() & ~named]
    reasons[asked.index] = pd.Series(list(map_files(_why_no_image, asked)), asked.index, dtype=object)
    return reasons


def _why_no_image(path: str) -> str | None:
    """The reason why this file, or address, is no image by its content; None for an image."""
    try:
        head = read_bytes(path, HEAD_BYTES)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if begins_like_image(head):
        return None
    return f"{kind}, which is not read" if (kind := other_kind(head)) else "no image"


def _classes_of(files: Iterable[str], layout: Layout) -> set[str]:
    """The folders in which a class was expected."""
    paths = (file.split("/") for file in files)
    return {parts[layout.class_at] for parts in paths if len(parts) > layout.class_at + 1}
