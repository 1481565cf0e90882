"""The manifest of a source with one folder per class: single-label colour images, for pre-training and other tasks.

CLASS/image              split by a hash of the path
SPLIT/CLASS/image        the folders' own split, in any of the words that etl/sources/words.py knows for splits
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
from etl.contract.images.decode import begins_like_image
from etl.contract.images.kinds import HEAD_BYTES, SUFFIXES, other_image
from etl.contract.storage import clutter, list_files, read_bytes
from etl.sources.files import NO_IMAGES
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.split import assign_split
from etl.sources.words import known_splits, resembles_split, split_of, tokens_of

# Words in names of files and folders that mark regions of images, and words beside them.
MASK_WORDS = {"mask", "masks", "seg", "segm", "segmentation", "segmentations", "annotation", "annotations", "gt"}
MASK_WORDS |= {"label", "labels", "heatmap", "heatmaps"}
BESIDE_MASK = {"left", "right", "lung", "lungs", "heart"}
# Folders of these names lie beside folders of masks or labels.
NO_CLASSES = ("images", "image", "imgs", "img")


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
    left_out = pd.Series([_why_left_out(file, files.path[file]) for file in files.index], files.index, dtype=object)
    images = left_out.index[left_out.isna()]
    if images.empty:
        raise InputError(f"no image among the {len(files)} files below {source}: check --etl.source and --etl.format")
    layout = _understand(source, [image.split("/") for image in images])
    left_out[_masks(images, layout)] = "a mask of an image"
    paths = pd.Series(left_out.index[left_out.isna()], dtype=str)
    parts = paths.str.split("/")
    names = parts.str[layout.class_at]
    classes = sorted(names.unique())
    if len(classes) < 2:
        raise InputError(
            f"{source} holds {len(paths)} images in {len(classes)} classes ({', '.join(classes)}), expected "
            "at least two: give the folder that holds the folders of the classes, or of the splits, as --etl.source"
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
    notes = [f"the folders are {layout}; the classes are {', '.join(classes)}"]
    if folders is not None:
        said = (f"{folder} ({split_of(folder)})" for folder in sorted(folders.unique()))
        notes.append(f"the splits are {', '.join(said)}")
    empty = _classes_of(left_out.dropna(), layout) - set(classes)
    if empty:
        notes.append(f"no image is in the folders {', '.join(sorted(empty))}, which are no classes therefore")
    searched = f"images below {source}"
    return assemble(rows, files, classes, [], searched, channels=3, left_out=left_out, notes=notes)


def _why_left_out(file: str, path: str) -> str | None:
    """The reason why a file is no image of the source; None for an image.

    file: its path below the source. path: its whole path or address.
    """
    if found := clutter(file):
        return found
    ending = PurePosixPath(file).suffix.lower()
    if ending in SUFFIXES:
        return None
    try:
        head = b"" if ending in NO_IMAGES else read_bytes(path, HEAD_BYTES)
        if begins_like_image(head):
            return None
        return f"{image}, which is not read" if (image := other_image(head)) else "no image"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _understand(source: UPath, paths: list[list[str]]) -> Layout:
    """The layout of these paths, each split into folders and name. Raises InputError if it is not one of the three."""
    tops = {parts[0] for parts in paths if len(parts) > 1}
    splits = {top for top in tops if split_of(top)}
    if splits and splits != tops:
        others = ", ".join(sorted(tops - splits))
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
    if layout.split_at != 0 and (common := _same_below(paths, 1 if layout.split_at is None else 2)):
        raise InputError(
            f"all of the folders {', '.join(sorted(tops))} of {source} hold the same folders {', '.join(common)}, as "
            "if these were the classes: give one of them as --etl.source, or rename the folders below"
        )
    return layout


def _same_below(paths: list[list[str]], at: int) -> list[str]:
    """The folders at this place of the paths, if two or more folders at the top hold the very same ones.

    Folders of images, of masks and with numbers, such as those of patients, may be the same in every class.
    """
    below: dict[str, set[str]] = {}
    for parts in paths:
        below.setdefault(parts[0], set()).update(parts[at : at + 1] if len(parts) > at + 1 else [""])
    kept = [{one for one in names if one.lower() not in NO_CLASSES and not _marks(one)} for names in below.values()]
    same = len(kept) > 1 and all(names == kept[0] for names in kept) and len(kept[0]) > 1
    return sorted(kept[0]) if same and not any(re.search(r"^$|\d", name) for name in kept[0]) else []


def _no_class(name: str, classes: set[str]) -> str | None:
    """Why this folder seems to be no class; None for any other."""
    if resembles_split(name):
        return f"its name resembles that of a split (known are {known_splits()})"
    tokens = set(tokens_of(name))
    if name.lower() in NO_CLASSES or (_marks(name) and tokens <= MASK_WORDS | BESIDE_MASK and "mask" not in tokens):
        return "it is called after what it holds"
    # Classes of people with and without masks all have the word.
    others = {tuple(tokens_of(other)) for other in classes - {name}}
    is_alone = not any("mask" in token for one in others for token in one)
    if _marks(name) and (_without_mask(name) & others or is_alone):
        return "its images seem to be masks of the others"
    return None


def _marks(name: str) -> bool:
    """Whether the name is that of something that marks regions of images."""
    return any(token in MASK_WORDS or token.endswith("mask") for token in tokens_of(name))


def _without_mask(name: str) -> set[tuple[str, ...]]:
    """What an image may be called whose mask has this name: `1` for `1_lung_mask` and `mask_1`, and for `1_mask2`."""
    kept, without_numbers, after = [], [], False
    for token in tokens_of(name):
        marks = token in MASK_WORDS or token.endswith("mask")
        if not marks and token not in BESIDE_MASK:
            kept.append(token)
            without_numbers += [] if after and token.isdigit() else [token]
        after = marks or (after and token.isdigit())
    return {tuple(kept), tuple(without_numbers)} - {()}


def _masks(images: Iterable[str], layout: Layout) -> list[str]:
    """The images that mark regions of others: in a folder of masks below a class, or named as an image and `_mask`."""
    below = max(layout.class_at, layout.split_at or 0) + 1
    paths = [PurePosixPath(image) for image in images]
    films = {(path.parts[:below], tuple(tokens_of(path.stem))) for path in paths if not _marks(path.stem)}

    def is_mask(path: PurePosixPath) -> bool:
        if any(map(_marks, path.parts[below:-1])):
            return True
        return _marks(path.stem) and any((path.parts[:below], name) in films for name in _without_mask(path.stem))

    return [str(path) for path in paths if is_mask(path)]


def _classes_of(files: pd.Series, layout: Layout) -> set[str]:
    """The folders in which a class was expected. files: reasons, indexed by path."""
    paths = (file.split("/") for file, why in files.items() if not clutter(file))
    return {parts[layout.class_at] for parts in paths if len(parts) > layout.class_at + 1}
