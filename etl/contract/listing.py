"""Every file below a folder, local or in a store, and why nobody put it there for reading."""

import os
from collections import deque
from collections.abc import Callable, Iterator

import pandas as pd
from upath import UPath

from conf.errors import InputError
from etl.contract.clutter import clutter, find_clutter
from etl.contract.storage import is_local, version_of


def list_files(folder: UPath) -> pd.DataFrame:
    """Every file below `folder`, whatever its name.

    Index: path below the folder. Columns: path (absolute, or an address); file_version, which changes when the file
    does: its size and its time or ETag; clutter: why nobody put the file there for reading, see find_clutter.
    Links to folders are followed, each folder is visited once: attrs["links"] has the other names of such a folder, as
    paths below `folder` -> the path under which its files are listed.
    Raises InputError for a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        # Otherwise its images would be counted as absent, and leave the table.
        raise InputError(f"{error.filename} cannot be listed ({error.strerror}): grant the right to read it")

    links: dict[str, str] = {}
    rows = list(walk_files(str(folder), links, refuse) if is_local(folder) else _find(folder))
    for name, *_ in rows:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"a file below {folder} is named {name!r}, which is no UTF-8: rename it") from None
    files = pd.DataFrame(rows, columns=["name", "path", "file_version"]).set_index("name").sort_index()
    files["clutter"] = pd.Series(find_clutter(files.index), files.index, dtype=object)
    files.attrs["links"] = links
    return files


def walk_files(folder: str, again: dict[str, str], refuse: Callable[[OSError], None]) -> Iterator[tuple[str, str, str]]:
    """Relative path, path and version of each file of a local folder.

    again: gets the links of list_files. refuse: is called with the error of each folder that cannot be listed.
    """
    seen: dict[tuple[int, int], str] = {}
    # Links are followed when all else is listed, so that a folder to which one leads as well is listed under its own
    # name; but before the folders that are clutter, so that one with another name is not listed as a part of these.
    links, last = deque([folder]), deque()
    while links or last:
        for parent, folders, names in os.walk((links or last).popleft(), onerror=refuse):
            status = os.stat(parent)
            here, key = os.path.relpath(parent, folder), (status.st_dev, status.st_ino)
            if key in seen:
                folders.clear()
                # Not a link to a folder above, which only makes a loop.
                if not f"{here}/".startswith(f"{seen[key]}/") and seen[key] != ".":
                    again[here] = seen[key]
                continue
            seen[key] = here
            below = "" if here == "." else f"{here}/"
            inside = []
            for name in sorted(folders):
                path = os.path.join(parent, name)
                if clutter(f"{below}{name}/file"):
                    last.append(path)
                elif os.path.islink(path):
                    links.append(path)
                else:
                    inside.append(name)
            folders[:] = inside
            for name in sorted(names):
                path = os.path.join(parent, name)
                try:
                    status = os.stat(path)
                    version = f"{status.st_size}:{status.st_mtime_ns}"
                except OSError:
                    # A broken link is listed, so that it goes to quarantine with the reason why reading failed.
                    version = "absent"
                yield below + name, path, version


def _find(folder: UPath) -> Iterator[tuple[str, str, str]]:
    """The same for a folder in a store, by one listing."""
    found = folder.fs.find(folder.path, detail=True)
    for key, info in found.items():
        # The folders that consoles of stores make are empty objects.
        if key.endswith("/") and not info["size"]:
            continue
        yield key[len(folder.path) :].lstrip("/"), folder.fs.unstrip_protocol(key), version_of(info)
