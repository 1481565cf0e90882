"""Where settings may point: the folders and addresses that the libraries below can take. Nothing is opened here.

Measured by writing and reading at paths with each character of Unicode's first plane (deltalake 1.6.6, Petastorm
0.12.1, MLflow 3.17.2, s3fs 2026.9): what a library cannot take it refuses hours later, or it writes elsewhere. Spark
and OpenVINO take all of them.
"""

import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conf.errors import InputError

# Scheme of a store -> the package with its client; empty: a part of this environment.
CLIENTS = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfss": "adlfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "hdfs": "",
}
# Package -> the extra of setup.py that installs it, if that is not installed anyway.
EXTRAS = {"gcsfs": "gcs", "adlfs": "azure"}
# Other names of a store -> the name that all libraries know.
SAME_STORE = {"s3a": "s3", "gcs": "gs"}

# What a path must not have (a pattern), and why.
Rule = tuple[str, str]
NO_UTF8: Rule = ("[\ud800-\udfff]", "it is no UTF-8")
CONTROL: Rule = (r"[\x00-\x1f\x7f]", "deltalake refuses control characters")
DELTA: tuple[Rule, ...] = (
    NO_UTF8,
    CONTROL,
    (r"[\[\]^|]", "deltalake, which writes the tables, crashes on it"),
    (r"\\", "deltalake takes it for a /"),
    (r"%[0-9A-Fa-f]{2}", "deltalake and MLflow take it for one encoded character"),
)
URL: Rule = ("[#?]", "Petastorm and the clients of stores take it for the end of an address's path")
STORE: tuple[Rule, ...] = (
    NO_UTF8,
    CONTROL,
    (r"[*?\[\]]", "the clients of stores take it for a pattern"),
    ("::", "the clients of stores take it for a chain of addresses"),
)
STORED_TABLE: tuple[Rule, ...] = (
    *DELTA,
    URL,
    *STORE[2:],
    ("[\u0085\u2028\ufffe\uffff]", "the answers of a store, which are XML, cannot hold it"),
    ("(?<=[^:/])//", "deltalake takes no empty name of a folder"),
)


@dataclass(frozen=True)
class Use:
    """What a place is for, which decides what opens it."""

    what: str
    """a noun, or of a place on this machine a sentence that says so"""
    local: tuple[Rule, ...]
    store: tuple[Rule, ...] = ()
    """empty: it must be a folder of this machine"""
    is_table: bool = True
    expected: str = "a folder"
    addresses: str = "--etl.source, --etl.table and --scoring.output may be addresses"
    """where an address may be given instead"""


FILES = Use("files", (NO_UTF8,), STORE, is_table=False)
CACHE = Use("a cache lies on a local disk", FILES.local)
LUNG_NETWORK = Use("a lung network lies on a local disk", FILES.local)
SCORES = Use("a table of scores", DELTA, STORED_TABLE)
TABLES = Use("tables", (*DELTA, URL), STORED_TABLE)
WORKSPACE = Use("a workspace lies on a local disk", TABLES.local)
INFER_FILES = Use(
    "infer.py reads local files",
    local=(),
    expected="files and folders",
    addresses="`spark-submit inference/predict.py --scoring.source ADDRESS` scores a folder of a store",
)


def place_of(setting: str, given: str, use: Use) -> str:
    """The place that a setting names: a local folder or file becomes absolute, an address gets the store's usual name.

    Raises InputError, with another place to choose, for a place that the libraries which open it cannot take, for an
    unknown kind of address, and for one whose client is not installed.
    """
    address = re.match(r"([A-Za-z][\w.+-]*):/(/?)", given)
    if address and address[1].lower() == "dbfs":
        path = re.sub("^/+", "/", given.partition(":")[2])
        there = path if path.startswith(("/Volumes/", "/dbfs/")) else f"/dbfs{path}"
        raise InputError(
            f"{setting} is {given!r}, an address that only Databricks' own commands know: write {there!r}, where its "
            "clusters mount it"
        )
    if address and (address[2] or address[1].lower() in ("file", *CLIENTS)):
        return _store_of(setting, given, use)
    if address and not os.path.lexists(given.partition("/")[0]):
        raise InputError(
            f"{setting} is {given!r}, which looks like an address or a path of Windows: write ./{given} for such a "
            "folder of this machine, or an address with two slashes"
        )
    if not given:
        raise InputError(f"{setting} is empty: name a folder, or write . for the current one")
    expanded = os.path.expanduser(given)
    if expanded.startswith("~"):
        user = given[1:].partition("/")[0]
        raise InputError(f"{setting} is {given!r}, and there is no user {user!r}: write ./{given} for such a folder")
    path = str(Path(expanded).absolute())
    real, shown = path, repr(path)
    found = _faults(path, use.local)
    if not found:
        # deltalake follows links.
        real = os.path.realpath(path)
        shown, found = f"{path!r}, a link to {real!r}", _faults(real, use.local)
    if found:
        raise InputError(_refusal(setting, shown, found, _local_choices(path, real, use)))
    return path


def unknown_store(setting: str, address: str) -> InputError:
    """The error for an address of an unknown kind."""
    scheme, known = address.partition(":")[0], []
    for name, package in CLIENTS.items():
        known.append(f"{name}://" + (f" (needs `{_install(package)}`)" if package and not _is_there(package) else ""))
    return InputError(f"{setting} is {address!r}, and {scheme}:// is unknown here: known are {', '.join(known)}")


def _store_of(setting: str, address: str, use: Use) -> str:
    scheme, _, rest = address.partition(":")
    scheme = scheme.lower()
    if scheme == "file":
        raise InputError(f"{setting} is {address!r}: write the path itself, such as {'/' + rest.lstrip('/')!r}")
    if not use.store:
        raise InputError(
            f"{setting} is {address!r}, expected {use.expected} of this machine: {use.what}; {use.addresses}"
        )
    if azure := re.fullmatch(r"wasbs?://([^@/]+)@([^./]+)\.blob\.([^/]+)(.*)", address):
        container, account, domain, path = azure.groups()
        raise InputError(
            f"{setting} is {address!r}, an old name that no client knows: write "
            f"abfss://{container}@{account}.dfs.{domain}{path}"
        )
    if scheme in CLIENTS and not rest.startswith("//"):
        raise InputError(f"{setting} is {address!r}, expected two slashes: {scheme}:/{rest}")
    if scheme not in CLIENTS and use.is_table:
        raise unknown_store(setting, address)
    # HDFS has a default host.
    if re.fullmatch("/*", rest) or (rest.startswith("///") and scheme != "hdfs"):
        raise InputError(f"{setting} is {address!r}, which names no bucket: write {scheme}://BUCKET/FOLDER")
    package = CLIENTS.get(scheme, "")
    if package and not _is_there(package):
        raise InputError(
            f"{setting} is {address!r}, and the client for {scheme}:// is not installed: `{_install(package)}` "
            "(and the same for the workers of a Spark cluster)"
        )
    address = f"{SAME_STORE.get(scheme, scheme)}:{rest.rstrip('/')}"
    if found := _faults(address, use.store):
        raise InputError(_refusal(setting, repr(address), found, [_renamed(address, use.store)]))
    return address


def _install(package: str) -> str:
    """The command that installs a client."""
    return f"pip install 'chexscale[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _faults(place: str, rules: tuple[Rule, ...]) -> dict[str, str]:
    """What is in the place but must not be -> why."""
    faults: dict[str, str] = {}
    for pattern, why in rules:
        for found in re.findall(pattern, place):
            faults.setdefault(found, why)
    return faults


def _refusal(setting: str, place: str, found: dict[str, str], choices: list[str]) -> str:
    reasons: dict[str, list[str]] = {}
    for part, why in found.items():
        reasons.setdefault(why, []).append(repr(part)[1:-1] if not part.isprintable() else part)
    why = "; ".join(f"{' '.join(parts)} ({reason})" for reason, parts in reasons.items())
    return f"{setting} is {place}, whose path has {why}: choose another, such as {shlex.quote(choices[0])}"


def _renamed(place: str, rules: tuple[Rule, ...]) -> str:
    wrong = "|".join(f"(?:{pattern})" for pattern, _ in rules)
    return re.sub(wrong, lambda found: "/" if found[0] == "//" else "_", place)


def _local_choices(path: str, real: str, use: Use) -> list[str]:
    """Places that would do, the nearest first: the same with other characters, else in the home folder."""

    def places() -> Iterator[str]:
        yield _renamed(path, use.local)
        yield _renamed(real, use.local)
        yield str(Path.home() / Path(_renamed(path, use.local)).name)

    def can_be_made(place: str) -> bool:
        there = next(folder for folder in (Path(place), *Path(place).parents) if folder.exists())
        return (
            there.is_dir()
            and os.access(there, os.W_OK, effective_ids=True)
            and not _faults(os.path.realpath(place), use.local)
        )

    return [*filter(can_be_made, places()), _renamed(path, use.local)]
