"""Which file each listed image is, and why the other files of a source are left out.

Every file below a source is in one of the numbers that a run prints: rows, quarantined, or left out with its kind and
the reason. An image that is listed but has no file is absent.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.words import counted
from etl.contract.clutter import HEATMAP
from etl.contract.images.kinds import SUFFIXES

# Beside images lie reports and lists of the same names.
TEXTS = (".csv", ".db", ".doc", ".docx", ".htm", ".html", ".json", ".md", ".py", ".tsv", ".txt", ".xls", ".xlsx")
TEXTS += (".xml", ".yaml", ".yml")
MAX_KINDS = 20
"""at most so many kinds of left-out files are counted one by one, the rare ones together"""
MAX_LINKS = 40
"""in a path, as Linux allows (path_resolution(7)); links to folders above others may make endless paths"""


def count_left_out(reasons: pd.Series, clutter: pd.Series) -> dict[str, int]:
    """Kind and reason, such as `.txt, no image` -> number of these files, the most frequent first.

    reasons: why each file is left out that is not clutter, indexed by its path below the source. clutter: that of the
    files, from list_files.
    """
    kinds = Counter(
        found if found and found != HEATMAP else f"{_kind(file)}, {found or why}"
        for (file, why), found in zip(reasons.items(), clutter[reasons.index], strict=True)
    )
    rest = sum(number for _, number in kinds.most_common()[MAX_KINDS:])
    return dict(kinds.most_common(MAX_KINDS)) | ({"other kinds": rest} if rest else {})


def match_files(names: pd.Series, files: pd.DataFrame, table: UPath, taken: Iterable[str] = ()) -> pd.Series:
    """The file of each listed image, as its path below the source; None without one. The index is that of `names`.

    A name is a path below the source, also one through a link to a folder. If there is no such file, it may be spelled
    otherwise (`./`, backslashes, upper and lower case, Unicode forms), and be longer or shorter than the path by some
    folders in front: `a/1.png` and `images/a/1.png` match, whichever is listed. At last the ending may be missing in
    the name. A name that fits only files which other names have exactly is absent.
    Raises InputError if a name fits several files, or a file several names. files: from list_files. table: names them,
    for the message. taken: files that other rows of the table name in another way, such as by an UID.
    """
    there, links = set(files.index), _Links(files.attrs.get("links", {}))
    followed = names.map(links.follow) if links else names
    found = followed.where(followed.isin(there), None).astype(object)
    if found.notna().all():
        return found
    candidates = [file for file in files.index[files.clutter.isna()] if not file.lower().endswith(TEXTS)]
    named = found.dropna()
    exact = {*named, *taken}
    # Folders of a name in front of the path of its file -> the first such name and file.
    roots: dict[tuple[str, ...], tuple[str, str]] = {}
    if len(named):
        roots[()] = names[named.index[0]], named.iloc[0]
    for spell in (_parts, _parts_without_ending):
        index, got = _Ends((spell(file), file) for file in candidates), {}
        for name in names[found.isna()]:
            fits = index.fitting(_parts(name)) | links.fitting(_parts(name), index)
            if all(file in exact and surplus for file, surplus in fits.items()):
                continue
            if len(fits) > 1:
                one, other, *_ = sorted(fits)
                raise InputError(
                    f"{table}: {name!r} fits {len(fits)} files, {one!r} and {other!r}: write the path below the source"
                )
            ((got[name], surplus),) = fits.items()
            roots.setdefault(_parts(name)[: max(0, surplus)], (name, got[name]))
        found = found.where(found.notna(), names.map(got))
    found = found.astype(object).where(found.notna(), None)
    _check_roots(roots, table)
    twice = found.dropna()[found.dropna().duplicated(keep=False)]
    if len(twice):
        one, other = names[twice.index[twice == twice.iloc[0]][:2]]
        raise InputError(f"{table}: {one!r} and {other!r} are the same file, {twice.iloc[0]!r}: keep one row per image")
    return found


def _check_roots(roots: dict[tuple[str, ...], tuple[str, str]], table: UPath) -> None:
    """Raises InputError if names that begin with other folders than their files' paths do not all begin with the same.

    Otherwise `a/1.png`, whose file is absent, could be taken for a stray `1.png`.
    """
    if len(roots) > 1:
        (_, (one, _)), (root, (other, file)) = sorted(roots.items(), key=lambda item: len(item[0]))[:2]
        raise InputError(
            f"{table}: {other!r} has a file only without its first folders, {'/'.join(root)!r}, but {one!r} has not: "
            f"write all names as paths below the source, or all with the same folders in front, or, if {file!r} is "
            "another image, list it under this name or move it out of the source"
        )


def describe_links(files: pd.DataFrame) -> list[str]:
    """A sentence on folders that have several names by links, and that are read once; empty if there are none."""
    links = files.attrs.get("links", {})
    if not links:
        return []
    link, target = next(iter(links.items()))
    return [
        f"{counted(len(links), 'folder has', 'folders have')} another name by a link, such as {link!r}: its files are "
        f"read as {target!r}"
    ]


def describe_match(names: pd.Series, found: pd.Series) -> list[str]:
    """A sentence on images whose file is not named exactly as listed; empty if there are none."""
    other = found.notna() & (found != names)
    if not other.any():
        return []
    name, file = names[other].iloc[0], found[other].iloc[0]
    return [
        f"{counted(other.sum(), 'image was', 'images were')} found under another spelling, folder or ending, such as "
        f"{name!r} as {file!r}"
    ]


class _Ends:
    """Finds the paths that end like another path, or with which it ends."""

    def __init__(self, paths: Iterable[tuple[tuple[str, ...], str]]):
        self._paths = list(paths)
        self.whole: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for parts, file in self._paths:
            self.whole[parts].add(file)
        self._depths = sorted({len(parts) for parts in self.whole})
        self._last: dict[int, dict[tuple[str, ...], dict[str, int]]] = {}

    def fitting(self, name: tuple[str, ...]) -> dict[str, int]:
        """Files of which `name` is the end, or that are the end of `name` -> number of parts that `name` has more."""
        depth = len(name)
        if depth not in self._last:
            self._last[depth] = defaultdict(dict)
            for parts, file in self._paths:
                self._last[depth][parts[-depth:]][file] = depth - len(parts)
        fits = dict(self._last[depth].get(name, {}))
        for other in self._depths:
            if other < depth:
                fits |= dict.fromkeys(self.whole.get(name[-other:], ()), depth - other)
        return fits


class _Links:
    """Follows the links of list_files in names, instead of giving names to files: a folder may have many links."""

    def __init__(self, links: dict[str, str]):
        self._exact = {tuple(link.split("/")): tuple(target.split("/")) for link, target in links.items()}
        self._spelled = {_parts(link): _parts(target) for link, target in links.items()}
        self._ends = _Ends((_parts(link), target) for link, target in links.items())

    def __len__(self) -> int:
        return len(self._exact)

    def follow(self, name: str) -> str:
        """The path under which the file of this name is listed, if there is one."""
        return "/".join(_follow(tuple(name.split("/")), self._exact))

    def fitting(self, name: tuple[str, ...], index: _Ends) -> dict[str, int]:
        """As index.fitting, for names of which the first folders are a link, its end, or end with one."""
        fits = {}
        for at in range(1, len(name)) if self else ():
            for target, surplus in self._ends.fitting(name[:at]).items():
                through = _follow((*_parts(target), *name[at:]), self._spelled)
                fits |= dict.fromkeys(index.whole.get(through, ()), surplus)
        return fits


def _follow(parts: tuple[str, ...], links: dict[tuple[str, ...], tuple[str, ...]]) -> tuple[str, ...]:
    """The path without links in it. links: to folders -> the folders."""
    for _ in range(MAX_LINKS):
        link = next((parts[:at] for at in range(1, len(parts)) if parts[:at] in links), None)
        if link is None:
            break
        parts = links[link] + parts[len(link) :]
    return parts


def _parts(path: str) -> tuple[str, ...]:
    """The folders and the name of a path, in one spelling."""
    spelled = unicodedata.normalize("NFC", path.replace("\\", "/")).casefold()
    return tuple(part for part in spelled.split("/") if part not in ("", "."))


def _parts_without_ending(path: str) -> tuple[str, ...]:
    parts = _parts(path)
    return (*parts[:-1], *(name.removesuffix(_ending(name)) for name in parts[-1:]))


def _ending(name: str) -> str:
    """The ending of an image file, in lower case; empty for other names, which may have points, as UIDs do."""
    return next((ending for ending in SUFFIXES if name.endswith(ending) and name != ending), "")


def _kind(path: str) -> str:
    """The ending, such as `.txt`; a name such as an UID has none."""
    ending = re.search(r"[^/](\.[a-z][a-z0-9]{0,7}(?:\.gz)?)$", path.lower())
    return ending[1] if ending else "without ending"
