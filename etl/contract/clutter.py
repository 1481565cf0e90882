"""Files below a folder that nobody put there for reading. Readers of every format, batch and command line ask here.

They are hidden, or were left by systems and archives, or by earlier runs: workspaces, Delta tables and heat maps.
"""

import re
from collections import Counter
from collections.abc import Iterable

from conf.workspace import find_workspaces

# Folders that macOS's archives, Synology's and QNAP's servers, Windows and Linux make by themselves.
SYSTEM_FOLDERS = (
    "__MACOSX",
    "@eaDir",
    "#recycle",
    "@Recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)
HEATMAP = "a heat map of an earlier run"
LOG = "/_delta_log/"
# What heatmap_name gives. Older releases left out the word; their names begin with that of a film and its ending.
_HEATMAP_NAME = re.compile(r"(-heatmap-|\.[A-Za-z]{3,5}-(?=\d*[a-f]))[0-9a-f]{10}-[^/]+\.png$")


def clutter(path: str) -> str | None:
    """Why nobody put this file there for reading: `hidden`, or `in __MACOSX`; None for any other. path: relative."""
    parts = path.split("/")
    if found := next((part for part in parts[:-1] if part in SYSTEM_FOLDERS), None):
        return f"in {found}"
    return "hidden" if any(part.startswith(".") for part in parts) else None


def find_clutter(files: Iterable[str]) -> list[str | None]:
    """Why nobody put each file there for reading: as clutter, or as an earlier run's; None for any other.

    files: all files below a folder, as paths below it.
    """
    files = list(files)
    workspaces = find_workspaces(files)
    tables = {f"/{file}".partition(LOG)[0].lstrip("/") for file in files if LOG in f"/{file}"}

    def why(file: str) -> str | None:
        if found := clutter(file):
            return found
        if _is_below(file, workspaces):
            return "in a workspace"
        if _is_below(file, tables):
            return "in a Delta table"
        return HEATMAP if _HEATMAP_NAME.search(file) else None

    return [why(file) for file in files]


def describe_clutter(found: Iterable[str | None]) -> str:
    """The end of a sentence on files that find_clutter found, such as ` (32 in a workspace)`; empty without any."""
    kinds = Counter(filter(None, found))
    return f" ({', '.join(f'{number:,} {why}' for why, number in kinds.most_common())})" if kinds else ""


def heatmap_name(film: str, digest: str, finding: str) -> str:
    """Name of the picture with the heat map of a finding, by which find_clutter knows it.

    digest: ten hexadecimal digits, which tell films of the same name apart.
    """
    return f"{film}-heatmap-{digest}-{finding}.png"


def _is_below(file: str, folders: set[str]) -> bool:
    """Whether the file is below one of these folders; the empty folder is above all."""
    if not folders:
        return False
    parts = file.split("/")
    return any("/".join(parts[:depth]) in folders for depth in range(len(parts)))
