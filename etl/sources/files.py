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
from etl.contract.images.kinds import SUFFIXES
from etl.contract.storage import clutter

# Beside images lie reports and lists of the same names.
NO_IMAGES = (".csv", ".doc", ".docx", ".htm", ".html", ".json", ".md", ".pdf", ".py", ".tsv", ".txt", ".xls", ".xlsx")
NO_IMAGES += (".xml", ".yaml", ".yml", ".zip", ".gz", ".tar", ".npy", ".npz", ".db")
MAX_KINDS = 20
"""at most so many kinds of left-out files are counted one by one, the rare ones together"""


def count_left_out(reasons: pd.Series) -> dict[str, int]:
    """Kind and reason, such as `.txt, no image` -> number of these files, the most frequent first.

    reasons: why each file is left out that is not clutter, indexed by its path below the source.
    """
    counted = Counter(clutter(file) or f"{_kind(file)}, {why}" for file, why in reasons.items())
    rest = sum(number for _, number in counted.most_common()[MAX_KINDS:])
    return dict(counted.most_common(MAX_KINDS)) | ({"other kinds": rest} if rest else {})


def match_files(names: pd.Series, files: pd.DataFrame, table: UPath) -> pd.Series:
    """The file of each listed image, as its path below the source; None without one. The index is that of `names`.

    A name is a path below the source. If there is no such file, it may be spelled otherwise (`./`, backslashes, upper
    and lower case, Unicode forms), and be longer or shorter than the path by some folders in front: `a/1.png` and
    `images/a/1.png` match, whichever is listed. At last the ending may be missing in the name.
    Raises InputError if a name fits several files, or a file several names. files: from list_files. table: names them,
    for the message.
    """
    there = set(files.index)
    for link, target in files.attrs.get("links", {}).items():
        names = names.str.replace(rf"^(\./)?{re.escape(link)}/", f"{target}/".replace("\\", "\\\\"), regex=True)
    found = names.where(names.isin(there), None).astype(object)
    if found.notna().all():
        return found
    candidates = [file for file in there if clutter(file) is None and not file.lower().endswith(NO_IMAGES)]
    for spell in (_parts, _parts_without_ending):
        index = _Ends((spell(file), file) for file in candidates)
        fits = {name: index.fitting(_parts(name)) for name in names[found.isna()]}
        for name, several in fits.items():
            if len(several) > 1:
                one, other, *_ = sorted(several)
                raise InputError(
                    f"{table}: {name!r} fits {len(several)} files, {one!r} and {other!r}: write the path below "
                    "the source"
                )
        found = found.where(found.notna(), names.map({name: next(iter(one)) for name, one in fits.items() if one}))
    found = found.astype(object).where(found.notna(), None)
    _check_roots(names, found, table)
    twice = found.dropna()[found.dropna().duplicated(keep=False)]
    if len(twice):
        one, other = names[twice.index[twice == twice.iloc[0]][:2]]
        raise InputError(f"{table}: {one!r} and {other!r} are the same file, {twice.iloc[0]!r}: keep one row per image")
    return found


def _check_roots(names: pd.Series, found: pd.Series, table: UPath) -> None:
    """Raises InputError if names that begin with other folders than their files' paths do not all begin with the same.

    Otherwise `a/1.png`, whose file is absent, could be taken for a stray `1.png`.
    """
    roots: dict[tuple[str, ...], str] = {}
    for name, file in zip(names[found.notna()], found[found.notna()], strict=True):
        parts, there = _parts(name), _parts(file)
        roots.setdefault(parts[: max(0, len(parts) - len(there))], name)
    if len(roots) > 1:
        (_, one), (root, other) = sorted(roots.items(), key=lambda item: len(item[0]))[:2]
        raise InputError(
            f"{table}: {other!r} has a file only without its first folders, {'/'.join(root)!r}, but {one!r} has not: "
            "write all names as paths below the source, or all with the same folders in front"
        )


def describe_links(files: pd.DataFrame) -> list[str]:
    """A sentence on folders that have several names by links, and that are read once; empty if there are none."""
    links = files.attrs.get("links", {})
    if not links:
        return []
    link, target = next(iter(links.items()))
    return [f"{len(links):,} folders have another name by a link, such as {link!r}: its files are read as {target!r}"]


def describe_match(names: pd.Series, found: pd.Series) -> list[str]:
    """A sentence on images whose file is not named exactly as listed; empty if there are none."""
    other = found.notna() & (found != names)
    if not other.any():
        return []
    name, file = names[other].iloc[0], found[other].iloc[0]
    return [f"{other.sum():,} images were found under another spelling, folder or ending, such as {name!r} as {file!r}"]


class _Ends:
    """Finds the paths that end like another path, or with which it ends."""

    def __init__(self, paths: Iterable[tuple[tuple[str, ...], str]]):
        self._paths = list(paths)
        self._whole: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for parts, file in self._paths:
            self._whole[parts].add(file)
        self._depths = sorted({len(parts) for parts in self._whole})
        self._last: dict[int, dict[tuple[str, ...], set[str]]] = {}

    def fitting(self, name: tuple[str, ...]) -> set[str]:
        """Files of which `name` is the end, or that are the end of `name`."""
        depth = len(name)
        if depth not in self._last:
            self._last[depth] = defaultdict(set)
            for parts, file in self._paths:
                self._last[depth][parts[-depth:]].add(file)
        shorter = [self._whole.get(name[-other:], set()) for other in self._depths if other < depth]
        return self._last[depth].get(name, set()).union(*shorter)


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
