"""Finds the image files that the given paths mean: files themselves, and folders with the images in them."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from etl.contract.images.decode import begins_like_image
from etl.contract.images.kinds import DICOM_INDEX, HEAD_BYTES, SUFFIXES
from etl.contract.storage import clutter, walk_files


class ImageFile(NamedTuple):
    """A path that was given, or a file below one."""

    path: str
    fault: str | None = None
    """why nothing can be read there"""


def find_images(paths: Iterable[str]) -> tuple[list[ImageFile], int]:
    """Returns the files in the order given, and the number of other files that the folders hold.

    The files of a folder and its subfolders are sorted by name. A file that was given by itself is always included.
    From a folder, every file is included that begins like an image of a kind that is read, or is named like one: a file
    that is named like an image but is none is reported, not left out. Hidden files and rests of archives (see
    clutter) are other files.
    """
    files: list[ImageFile] = []
    others = 0
    for path in paths:
        if os.path.isdir(path):
            inside, skipped = _inside(path)
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


def _inside(root: str) -> tuple[list[ImageFile], int]:
    files: list[ImageFile] = []
    others = 0

    def refuse(error: OSError) -> None:
        files.append(ImageFile(error.filename, f"this folder cannot be read: {error.strerror}"))

    for below, path, _ in walk_files(root, {}, refuse):
        if not clutter(below) and _looks_like_image(path, os.path.basename(path)):
            files.append(_as_file(path))
        else:
            others += 1
    # The files of a folder before those of its subfolders.
    return sorted(files, key=lambda file: (os.path.dirname(file.path).split("/"), file.path)), others


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
