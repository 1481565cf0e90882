"""Which files are meant by the paths that somebody gave: files as they are, folders with the images that they hold."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from etl.contract.images.decode import begins_like_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")
# An index of the DICOM files beside it (PS3.10, section 8.6).
DICOM_INDEX = "DICOMDIR"
# DICOM's prefix ends at 132; elements without one take some more to be recognised.
HEAD_BYTES = 1024


class ImageFile(NamedTuple):
    """A path that was given, or a file below one."""

    path: str
    fault: str | None = None
    """why nothing can be read there"""


def find_images(paths: Iterable[str]) -> tuple[list[ImageFile], int]:
    """Files in the order given, those of a folder and its subfolders by name; second, how many others the folders hold.

    A file that was given by itself is always among them. Of a folder's, all that begin like a PNG, JPEG, TIFF or DICOM
    file or are named like one: what is named an image and is none shall be told, not left out.
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
    # A named pipe would let the reader wait for ever.
    if os.path.isfile(path):
        return ImageFile(path)
    return ImageFile(path, "not a file" if os.path.exists(path) else "no such file or folder")


def _inside(root: str) -> tuple[list[ImageFile], int]:
    files: list[ImageFile] = []
    seen: set[str] = set()
    others = 0

    def refuse(error: OSError) -> None:
        files.append(ImageFile(error.filename, f"this folder cannot be read: {error.strerror}"))

    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        # A link may lead back to where it lies.
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if _looks_like_image(path, name):
                files.append(_as_file(path))
            else:
                others += 1
    return files, others


def _looks_like_image(path: str, name: str) -> bool:
    if name.lower().endswith(SUFFIXES):
        return True
    if name == DICOM_INDEX or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        # Nobody knows what it is; who decodes it says why.
        return True
    return begins_like_image(head)
