"""A package: one model in one file, or unpacked in a folder, that needs no registry. Checks and opens it.

The file is a ZIP archive without compression, so that it is no larger unpacked, and the same model gives the same bytes
with every zlib. Its first entry is manifest.json (see Manifest), which lists every other one with size and SHA-256.
packing.py writes it. Hashes find damage and mistakes; who made a package is what a signature says (docs/serving.md).
"""

import hashlib
import json
import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from conf.errors import InputError
from conf.writing import atomic_folder, locked
from inference.model.model_files import ModelFiles, models_cache

MANIFEST = "manifest.json"
FORMAT = 1
"""increased when an older program would misread a package"""
KIND = "chexscale model package"
# A file of one model has at most these; what is beyond was not made by packing.py.
MAX_MANIFEST_BYTES, MAX_FILES = 16 * 2**20, 100
# A relative path in which no part begins with a dot, so that none leads out of the folder.
PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
MAKE_AGAIN = "copy it again from where it was made, or make it again with `python inference/package.py`"
# What a damaged archive raises: while it is opened and while an entry is read.
DAMAGED = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError, struct.error)


@dataclass(frozen=True)
class Listed:
    """What the manifest says about a file."""

    num_bytes: int
    sha256: str
    """in hexadecimal"""


@dataclass(frozen=True)
class Manifest:
    """The parts of manifest.json by which a package is opened; the others are for readers."""

    name: str
    version: int
    files: dict[str, Listed]
    """path below the folder -> what it must be"""
    sha256: str
    """SHA-256 of manifest.json, and so the identity of the whole package"""

    @classmethod
    def parse(cls, content: bytes, origin: Path) -> "Manifest":
        """Reads the bytes of manifest.json; raises InputError, naming `origin`, for another format or kind of file."""
        try:
            fields = json.loads(content)
            if fields["kind"] != KIND:
                raise ValueError(f"its kind is {fields['kind']!r:.60}, expected {KIND!r}")
            made = fields["format"]
            if type(made) is not int or made < 1:
                raise ValueError(f"its format is {made!r:.60}, expected a number")
            if made <= FORMAT:
                return cls._parse(fields, hashlib.sha256(content).hexdigest())
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{origin}: {MANIFEST} cannot be read ({reason:.300}): {MAKE_AGAIN}") from error
        raise InputError(
            f"{origin} has package format {made}, but this program reads {FORMAT}: update CheXScale, or let the "
            "release that is installed here make the package"
        )

    @classmethod
    def _parse(cls, fields: dict, sha256: str) -> "Manifest":
        name, version, files = fields["name"], fields["version"], fields["files"]
        if not (isinstance(name, str) and name and name.isprintable()):
            raise ValueError(f"name is {name!r:.60}, expected a registered model's")
        if type(version) is not int or version < 1:
            raise ValueError(f"version is {version!r:.60}, expected a number from 1")
        if not isinstance(files, dict) or not 0 < len(files) <= MAX_FILES:
            raise ValueError(f"files is {files!r:.60}, expected 1 to {MAX_FILES} entries")
        listed = {}
        for path, facts in files.items():
            if not PLAIN_PATH.fullmatch(path) or path == MANIFEST:
                raise ValueError(f"file {path!r:.100} is no path below the package's folder")
            num_bytes, digest = facts["bytes"], facts["sha256"]
            if type(num_bytes) is not int or num_bytes < 0 or not SHA256.fullmatch(digest):
                raise ValueError(f"file {path} has no size and SHA-256")
            listed[path] = Listed(num_bytes, digest)
        return cls(name, version, listed, sha256)


def open_package(path: Path) -> ModelFiles:
    """Checks every file of a package, and unpacks an archive into models_cache() once. path: the file or a folder.

    A folder is used where it is, and nothing is written. Raises InputError if `path` is no package, if it has a newer
    format, or if a file is missing, was changed or is not listed; files in a folder whose names begin with a dot are
    passed over.
    """
    with _opened(path) as (names, entry):
        if MANIFEST not in names:
            raise InputError(
                f"{path} is no model package, it has no {MANIFEST}: give the file that `python inference/package.py` "
                "made, or the folder into which it was unpacked"
            )
        with entry(MANIFEST) as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise InputError(f"{path}: {MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes: {MAKE_AGAIN}")
        manifest = Manifest.parse(content, path)
        check(manifest, names, entry, path)
        folder = path if path.is_dir() else _unpacked(manifest, content, entry, path)
    return ModelFiles(manifest.name, manifest.version, folder, manifest.sha256)


def check(manifest: Manifest, names: list[str], entry: Callable[[str], BinaryIO], origin: Path) -> None:
    """Compares all files with the manifest. names: those that are there; entry: opens one. Raises InputError."""
    if unlisted := sorted(set(names) - {*manifest.files, MANIFEST}):
        raise InputError(
            f"{origin} holds {unlisted[0]!r:.100}, which its {MANIFEST} does not list: remove it, or {MAKE_AGAIN}"
        )
    for path, listed in manifest.files.items():
        if path not in names:
            raise InputError(f"{origin} lacks {path}, which its {MANIFEST} lists: {MAKE_AGAIN}")
        with entry(path) as file:
            # One byte more than there must be is enough to know.
            digest, num_bytes = _digest(file, listed.num_bytes + 1)
        if num_bytes != listed.num_bytes:
            got = f"has {num_bytes if num_bytes < listed.num_bytes else f'more than {listed.num_bytes}'} bytes"
            raise InputError(f"{origin}: {path} {got}, expected {listed.num_bytes}: {MAKE_AGAIN}")
        if digest != listed.sha256:
            raise InputError(
                f"{origin}: {path} has SHA-256 {digest}, expected {listed.sha256}: it was changed or damaged after the "
                f"package was made; {MAKE_AGAIN}"
            )


def _digest(file: BinaryIO, max_bytes: int) -> tuple[str, int]:
    digest, num_bytes = hashlib.sha256(), 0
    while block := file.read(min(2**20, max_bytes - num_bytes)):
        digest.update(block)
        num_bytes += len(block)
    return digest.hexdigest(), num_bytes


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], BinaryIO]]]:
    """Yields the names of the files in a package, and a function that opens one of them."""
    try:
        if path.is_dir():
            yield _names_in(path), lambda name: (path / name).open("rb")
            return
        with zipfile.ZipFile(path) as archive:
            yield _names_of(archive), archive.open
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path} is no whole model package ({error}): {MAKE_AGAIN}") from error
    except OSError as error:
        raise InputError(
            f"model package {error.filename or path} cannot be read ({error.strerror or error}): give the path of a "
            "package's file or folder, or grant the right to read it"
        ) from error


def _names_in(folder: Path) -> list[str]:
    names = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    return [name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)]


def _names_of(archive: zipfile.ZipFile) -> list[str]:
    entries = archive.infolist()
    if len(entries) > MAX_FILES + 1:
        raise ValueError(f"it has {len(entries)} entries, expected {MAX_FILES} at most")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"{entry.filename!r:.100} is compressed, as no package is: unpack it, and give the folder")
    names = [entry.filename for entry in entries]
    if len({*names}) < len(names):
        raise ValueError("two of its entries have the same name")
    return names


def _unpacked(manifest: Manifest, content: bytes, entry: Callable[[str], BinaryIO], path: Path) -> Path:
    """The folder with the files of a checked archive; unpacks it, unless it is there already and unchanged."""
    cache = models_cache()
    folder = cache / f"{manifest.sha256}-package"
    try:
        with locked(cache, wait=True):
            with suppress(InputError), _opened(folder) as (names, there):
                check(manifest, names, there, folder)
                if (folder / MANIFEST).read_bytes() == content:
                    return folder
            with atomic_folder(folder) as building:
                (building / MANIFEST).write_bytes(content)
                for name in manifest.files:
                    target = building / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with entry(name) as source, target.open("wb") as file:
                        shutil.copyfileobj(source, file)
    except OSError as error:
        raise InputError(
            f"{path} cannot be unpacked into {cache} ({error.strerror or error}): set XDG_CACHE_HOME to a folder that "
            "can be written to, or unpack the package with `unzip -d DIR` and give that folder, which may be read-only"
        ) from error
    return folder
