"""Finds the image files that the given paths mean: files themselves, and folders with the images in them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from conf.errors import InputError
from conf.places import INFER_FILES, place_of
from etl.contract.clutter import find_clutter
from etl.contract.images.decode import begins_like_image
from etl.contract.images.kinds import DICOM_INDEX, HEAD_BYTES, SUFFIXES
from etl.contract.listing import walk_files


class ImageFile(NamedTuple):
    """A path that was given, or a file below one."""

    path: str
    fault: str | None = None
    """why nothing can be read there"""


def local_path(given: str) -> str:
    """The path that a person gave, with the home folder for a `~` that the shell has left in quotes.

    Raises InputError, with the next step, for the address of a store and for the home of an unknown user.
    """
    if os.path.lexists(given):
        return given
    place_of("FILE_OR_FOLDER", given, INFER_FILES)
    return os.path.expanduser(given)


def find_images(paths: Iterable[str], without: str = "") -> tuple[list[ImageFile], int]:
    """Returns the files in the order given, and the number of other files that the folders hold.

    The files of a folder and its subfolders are sorted by name. A file that was given by itself is always included.
    From a folder, every file is included that begins like an image of a kind that is read, or is named like one: a file
    that is named like an image but is none is reported, not left out. What find_clutter finds, and the files of the
    folder `without`, are other files.
    Raises InputError for a path that is the folder `without`.
    """
    files: list[ImageFile] = []
    others = 0
    for path in paths:
        if os.path.isdir(path):
            inside, skipped = _inside(path, without)
            files += inside or [ImageFile(path, "no image in this folder")]
            others += skipped
        else:
            files.append(_as_file(path))
    return files, others


def _as_file(path: str) -> ImageFile:
    # Reading a named pipe would wait for ever.
    if os.path.isfile(path):
        return ImageFile(path)
    return ImageFile(path, "not a file" if os.path.exists(path) else "no such file or folder")


def _inside(root: str, without: str) -> tuple[list[ImageFile], int]:
    files: list[ImageFile] = []
    others = 0
    if without and os.path.realpath(root) == os.path.realpath(without):
        raise InputError(
            f"{root} is to be read and to hold the pictures, which would be films of the next run: "
            "choose another folder with --heatmaps"
        )
    if _lies_in(root, without):
        without = ""

    def refuse(error: OSError) -> None:
        files.append(ImageFile(error.filename, f"this folder cannot be read: {error.strerror}"))

    found = [(below, path) for below, path, _ in walk_files(root, {}, refuse)]
    left_out = {folder for folder in {os.path.dirname(path) for _, path in found} if _lies_in(folder, without)}
    clutter = find_clutter(below for below, _ in found)
    for (_, path), why in zip(found, clutter, strict=True):
        folder, name = os.path.split(path)
        if not why and folder not in left_out and _looks_like_image(path, name):
            files.append(_as_file(path))
        else:
            others += 1
    # The files of a folder before those of its subfolders.
    return sorted(files, key=lambda file: (os.path.dirname(file.path).split("/"), file.path)), others


def _lies_in(place: str, folder: str) -> bool:
    """Whether it is this folder or below it, also by links; False if `folder` is empty."""
    return bool(folder) and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder))


def _looks_like_image(path: str, name: str) -> bool:
    if name.lower().endswith(SUFFIXES):
        return True
    if name == DICOM_INDEX or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        # It cannot be checked here; decoding it will give the reason.
        return True
    return begins_like_image(head)
