"""The manifest of a source with one folder per class: single-label colour images, for pre-training and other tasks.

CLASS/image              split by a hash of the path
SPLIT/CLASS/image        the folders' own split, in any of the words that etl/contract/words.py knows for splits
CLASS/SPLIT/image

An image may lie deeper. Folders are never classes if some of them look like splits.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.images.decode import begins_like_image
from etl.contract.images.kinds import HEAD_BYTES, SUFFIXES, other_kind
from etl.contract.storage import list_files, map_files, read_bytes
from etl.contract.words import known_splits, resembles_split, split_of
from etl.sources.files import TEXTS
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.masks import BESIDE_MASK, MASK_WORDS, find_masks, marks, without_mask, words_of
from etl.sources.split import assign_split

# Folders of these names lie beside folders of masks or labels.
NO_CLASSES = ("images", "image", "imgs", "img")
MAX_SHOWN = 20
"""names in a sentence"""


@dataclass(frozen=True)
class Layout:
    """Which of the folders of a path names the class, and which the split."""

    class_at: int
    split_at: int | None
    """None if the images have no splits of their own"""

    def __str__(self) -> str:
        if self.split_at is None:
            return "CLASS/image"
        return "SPLIT/CLASS/image" if self.split_at == 0 else "CLASS/SPLIT/image"


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
            f"no image among the {counted(len(files), 'file')} below {source}: check --etl.source and --etl.format"
        )
    folders_and_name = [image.split("/") for image in images]
    layout = _understand(source, folders_and_name)
    below_at = 1 if layout.split_at is None else 2
    below = [] if layout.split_at == 0 else _describe_below(source, folders_and_name, below_at)
    left_out[find_masks(images, max(layout.class_at, layout.split_at or 0) + 1)] = (
        "a mask, overlay or thumbnail of an image"
    )
    paths = pd.Series(left_out.index[left_out.isna()], dtype=str)
    parts = paths.str.split("/")
    names = parts.str[layout.class_at]
    classes = sorted(names.unique())
    empty = _classes_of(left_out.index[left_out.notna() & files.clutter.isna()], layout) - set(classes)
    if len(classes) < 2:
        other = f"; the files of {_some(empty)} are masks, overlays or no images" if empty else ""
        raise InputError(
            f"{source} holds {counted(len(paths), 'image')} in {counted(len(classes), 'class', 'classes')} "
            f"({_some(classes)}{other}), expected at least two: give the folder that holds the folders of the "
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
    notes = [f"the folders are {layout}; the classes are {_some(classes)}"]
    if folders is not None:
        said = (f"{folder} ({split_of(folder)})" for folder in sorted(folders.unique()))
        notes.append(f"the splits are {', '.join(said)}")
    notes += below
    if empty:
        notes.append(f"no image is in the folders {_some(empty)}, which are no classes therefore")
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


def _understand(source: UPath, paths: list[list[str]]) -> Layout:
    """The layout of these paths, each split into folders and name. Raises InputError if it is not one of the three."""
    tops = {parts[0] for parts in paths if len(parts) > 1}
    splits = {top for top in tops if split_of(top)}
    if splits and splits != tops:
        others = _some(tops - splits)
        raise InputError(
            f"{source} holds the splits {', '.join(sorted(splits))} beside folders that are none: {others}. Move these "
            f"out of the source or rename them, or, if one of them is a copy with its own splits, give it as "
            f"--etl.source; known are {known_splits()}"
        )
    seconds = {parts[1] for parts in paths if len(parts) > 2}
    below = {second for second in seconds if split_of(second)}
    layout = Layout(1, 0) if splits else Layout(0, 1) if below else Layout(0, None)
    if below and not splits and len(tops) == 1:
        raise InputError(
            f"{source} holds one folder, with the splits {', '.join(sorted(below))}: give "
            f"{source / min(tops)} as --etl.source"
        )
    deepest = max(layout.class_at, layout.split_at or 0)
    for parts in paths:
        if len(parts) < deepest + 2 or (layout.split_at == 1 and not split_of(parts[1])):
            raise InputError(
                f"{source / '/'.join(parts)} is not in a folder of the layout {layout}, which other images below "
                f"{source} have: move it, or choose another --etl.format"
            )
    classes = {parts[layout.class_at] for parts in paths}
    for name in sorted(classes):
        if fault := _no_class(name, classes):
            raise InputError(
                f"{source} holds the folder {name!r} where a class is expected ({layout}), and {fault}: give another "
                "folder as --etl.source, move or rename this one, or read a label table with --etl.format csv"
            )
    for parts in paths:
        deeper = [part for part in parts[deepest + 1 : -1] if split_of(part)]
        if deeper:
            raise InputError(
                f"{source / '/'.join(parts)} is in a folder of a split, {deeper[0]!r}, at another level than in the "
                f"layout {layout}: expected CLASS/image, SPLIT/CLASS/image or CLASS/SPLIT/image"
            )
    return layout


def _describe_below(source: UPath, paths: list[list[str]], at: int) -> list[str]:
    """A sentence on the folders at this place of the paths if they could be the classes; empty if they could not.

    They could if one folder at the top holds all that the others hold, and two or more. Raises InputError if all hold
    the very same. Folders of images, of masks and with numbers, such as those of patients, may be alike in every class.
    """
    below: dict[str, set[str]] = {}
    for parts in paths:
        below.setdefault(parts[0], set()).update(parts[at : at + 1] if len(parts) > at + 1 else [""])
    kept = [{one for one in names if one.lower() not in NO_CLASSES and not marks(one)} for names in below.values()]
    every = max(kept, key=len)
    alike = len(kept) > 1 and len(every) > 1 and all(names and names <= every for names in kept)
    if not alike or any(re.search(r"^$|\d", name) for name in every):
        return []
    if all(names == every for names in kept):
        raise InputError(
            f"all of the folders {_some(below)} of {source} hold the same folders {_some(every)}, as if these were the "
            "classes: give one of them as --etl.source, or rename the folders below"
        )
    return [
        f"the folders of the classes hold the folders {_some(every)}: if these are the classes, give the folder above "
        "them as --etl.source"
    ]


def _no_class(name: str, classes: set[str]) -> str | None:
    """Why this folder seems to be no class; None for any other."""
    if resembles_split(name):
        return f"its name resembles that of a split (known are {known_splits()})"
    tokens = set(words_of(name))
    if name.lower() in NO_CLASSES or (marks(name) and tokens <= MASK_WORDS | BESIDE_MASK and "mask" not in tokens):
        return "it is called after what it holds"
    # Classes of people with and without masks all have the word.
    others = {tuple(words_of(other)) for other in classes - {name}}
    is_alone = not any("mask" in token for one in others for token in one)
    if marks(name) and (without_mask(name) & others or is_alone):
        return "its images seem to be masks of the others"
    return None


def _classes_of(files: Iterable[str], layout: Layout) -> set[str]:
    """The folders in which a class was expected."""
    paths = (file.split("/") for file in files)
    return {parts[layout.class_at] for parts in paths if len(parts) > layout.class_at + 1}


def _some(names: Iterable[str]) -> str:
    """The names, sorted, at most MAX_SHOWN of them."""
    known = sorted(names)
    more = f" and {len(known) - MAX_SHOWN} more" if len(known) > MAX_SHOWN else ""
    return ", ".join(known[:MAX_SHOWN]) + more
