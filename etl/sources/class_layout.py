"""What the folders of a source with one folder per class mean: which are classes, which splits, and which neither."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from upath import UPath

from conf.errors import InputError
from etl.contract.words import describes_films, known_splits, resembles_split, split_of, tokens_of
from etl.sources.masks import BESIDE_MASK, MASK_WORDS, marks, may_mark, without_mask, words_of

# Folders of these names lie beside folders of masks or labels.
NO_CLASSES = ("images", "image", "imgs", "img")
MAX_SHOWN = 20
"""names in a sentence"""
FEW = 5
"""names in a sentence on folders that may be those of patients"""


@dataclass(frozen=True)
class Layout:
    """Which of the folders of a path names the class, and which the split."""

    class_at: int
    split_at: int | None
    """None if the images have no splits of their own"""

    @property
    def below_at(self) -> int:
        """the place in the paths of what lies in the folders of classes and splits"""
        return max(self.class_at, self.split_at or 0) + 1

    def __str__(self) -> str:
        if self.split_at is None:
            return "CLASS/image"
        return "SPLIT/CLASS/image" if self.split_at == 0 else "CLASS/SPLIT/image"


def understand_folders(source: UPath, paths: list[list[str]]) -> Layout:
    """The layout of these paths, each split into folders and name. Raises InputError if it is not one of the three."""
    tops = {parts[0] for parts in paths if len(parts) > 1}
    splits = {top for top in tops if split_of(top)}
    if splits and splits != tops:
        others = some(tops - splits)
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
    for parts in paths:
        if len(parts) <= layout.below_at or (layout.split_at == 1 and not split_of(parts[1])):
            raise InputError(
                f"{source / '/'.join(parts)} is not in a folder of the layout {layout}, which other images below "
                f"{source} have: move it, or choose another --etl.format"
            )
    classes = {parts[layout.class_at] for parts in paths}
    files: dict[str, set[str]] = {}
    for parts in paths:
        files.setdefault(parts[layout.class_at], set()).add(parts[-1])
    for name in sorted(classes):
        others = [names for other, names in files.items() if other != name]
        # Numbers name the files of many folders alike.
        named = not all(file.partition(".")[0].isdigit() for file in files[name])
        if may_mark(name) and named and not BESIDE_MASK.issuperset(words_of(name)) and files[name] in others:
            raise InputError(
                f"{source} holds the folder {name!r} where a class is expected ({layout}), with files of the same "
                "names as another one, as if they were made of its images: move it out of the source, or rename it"
            )
        if fault := _no_class(name, classes):
            raise InputError(
                f"{source} holds the folder {name!r} where a class is expected ({layout}), and {fault}: give another "
                "folder as --etl.source, move or rename this one, or read a label table with --etl.format csv"
            )
    for parts in paths:
        deeper = [part for part in parts[layout.below_at : -1] if split_of(part)]
        if deeper:
            raise InputError(
                f"{source / '/'.join(parts)} is in a folder of a split, {deeper[0]!r}, at another level than in the "
                f"layout {layout}: expected CLASS/image, SPLIT/CLASS/image or CLASS/SPLIT/image"
            )
    return layout


def describe_below(source: UPath, paths: list[list[str]], layout: Layout) -> list[str]:
    """A sentence on folders deeper than the classes if they could be the classes; empty if they could not.

    They could if a folder of a class holds all that the others hold, and two or more, or if all share two or more.
    Raises InputError if all hold the very same, unless all names have digits, as those of patients and stages. Views,
    sides, sexes, images and masks may be alike in every class.
    """
    for at in range(layout.below_at, max(map(len, paths)) - 1):
        kept: dict[str, dict[str, str]] = {}
        loose = False
        for parts in paths:
            held = kept.setdefault(parts[layout.class_at], {})
            if len(parts) <= at + 1:
                loose = True
            elif parts[at].lower() not in NO_CLASSES and not marks(parts[at]):
                held["".join(tokens_of(parts[at]))] = parts[at]
        every, shared = max(kept.values(), key=len), set.intersection(*map(set, kept.values()))
        in_one = len(every) > 1 and all(names and names.keys() <= every.keys() for names in kept.values())
        numbered = all(re.search(r"\d", name) for name in every)
        if len(kept) < 2 or not (in_one or (len(shared) > 1 and not numbered)) or all(map(describes_films, every)):
            continue
        same = all(names.keys() == every.keys() for names in kept.values())
        if same and not loose and not numbered and at == layout.below_at and layout.split_at != 0:
            raise InputError(
                f"all of the folders {some(kept)} of {source} hold the same folders {some(every.values())}, as if "
                "these were the classes. If they are, name the upper folders after splits (train, val, test) if they "
                "are splits, move the images of each class into one folder if they are sites, or give one of them as "
                "--etl.source if the others are copies. If the upper folders are the classes, move their images up "
                "into them, under names of their own, and masks out of the source"
            )
        if at == layout.below_at or not numbered:
            names = some((every[name] for name in shared) if len(shared) > 1 else every.values(), FEW)
            patients = (
                "if these are patients, a label table (--etl.format csv) keeps each of them in one split; " * numbered
            )
            splits = ", and name the folders above after splits if they are splits" * (layout.split_at is None)
            return [
                f"the folders of the classes hold the same folders {names}: {patients}if these are the classes, move "
                f"the images of each into one folder{splits}"
            ]
    return []


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


def some(names: Iterable[str], limit: int = MAX_SHOWN) -> str:
    """The names, sorted, at most `limit` of them."""
    known = sorted(names)
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return ", ".join(known[:limit]) + more
