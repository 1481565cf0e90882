"""Files in a local folder, or in a store that fsspec can reach (s3://, abfss://, hdfs://, ...)."""

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import tee
from pathlib import Path
from typing import BinaryIO, TypeVar

import pandas as pd
from fsspec.registry import known_implementations
from upath import UPath

from conf.errors import InputError
from conf.places import CLIENTS, FILES, place_of, unknown_store
from etl.contract.clutter import clutter, find_clutter
from etl.contract.s3 import abort_uploads, open_object, read_object

Work = TypeVar("Work")
FETCHES = 16
"""files of a store that are fetched ahead: so many make up for two round trips of 30 ms beside the decoding of films"""
AHEAD_BYTES = 32_000_000
"""of a file that is fetched ahead; films have less"""
RUN_AGAIN = "Nothing was committed: run the same command again once the store answers"
STORE_CLIENTS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests")
PATIENCE_S = 180
"""for an answer, with all attempts of the store's client: s3fs repeats botocore's, for a quarter of an hour"""
# What the clients of a store read in the environment.
ENVIRONMENT = {
    "s3": "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    **dict.fromkeys(("abfss", "abfs", "az"), "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY"),
    "hdfs": "JAVA_HOME, HADOOP_HOME, ARROW_LIBHDFS_DIR, CLASSPATH=$(hadoop classpath --glob)",
}


def located(setting: str, given: str) -> UPath:
    """The folder or file that a setting names. Raises InputError, which names the setting, if it cannot be opened."""
    return ready(setting, place_of(setting, given, FILES))


def ready(setting: str, address: str) -> UPath:
    """locate, and the client of a store is made: some clients want to know an account, or load a library of the system.

    Nothing is opened yet. Raises InputError, which names the setting.
    """
    try:
        place = locate(address)
        if not is_local(place):
            _ = place.fs
        return place
    except Exception as error:
        # Each store's client has its own errors.
        if "://" in address and address.partition(":")[0] not in (*CLIENTS, *known_implementations):
            raise unknown_store(setting, address) from error
        raise InputError(f"{setting}: {unreachable(address, error)}") from error


def locate(address: str) -> UPath:
    """A folder, a file or an address such as s3://bucket/folder, as place_of returns it; local ones become absolute.

    Stores are reached with what their clients find in the environment, see ENVIRONMENT.
    """
    if "://" not in address:
        return UPath(os.path.abspath(os.path.expanduser(address)))
    # s3a is Hadoop's name for the same store.
    return UPath(address.replace("s3a://", "s3://", 1))


def is_local(place: UPath) -> bool:
    """Whether ordinary programs can open it by its path."""
    return isinstance(place, Path)


def is_folder(place: UPath) -> bool:
    """Whether there is such a folder. Raises InputError if the store does not answer, or refuses these keys."""
    try:
        if not is_local(place):
            # The content may have changed since this process listed it.
            place.fs.invalidate_cache()
        return place.is_dir()
    except Exception as error:
        # Each store's client has its own errors, and not all of them are OSErrors.
        raise InputError(unreachable(str(place), error)) from error


def unreachable(address: str, error: Exception) -> str:
    """The message for a folder or a store that gave this error."""
    reason = reason_of(error)
    if "://" not in address:
        return f"{address} cannot be read or written ({reason}): check its rights and the space left on its disk"
    return f"{address} cannot be reached ({reason}): check the address{store_advice(address)}"


def store_advice(address: str) -> str:
    """The end of a sentence on what to check, for a store that clients find by the environment."""
    known = ENVIRONMENT.get(address.partition(":")[0])
    return f", and what the environment says of its store ({known})" if known else ""


def reason_of(error: Exception) -> str:
    """The innermost cause of deltalake's tree of causes, the sentence of an answer in XML, or the whole error.

    fsspec's error for a time that is over has no text.
    """
    sentence = re.search("<Message>(.*?)</Message>", str(error))
    # Without the list of Rust's functions that may follow.
    innermost = re.split(r"\n +0: ", str(error).split("\x1b[31m↳\x1b[0m")[-1])[0]
    return sentence[1] if sentence else innermost.strip() or "no complete answer in time"


def is_of_a_store(error: Exception) -> bool:
    """Whether a store's client raised it. Their errors have nothing but their modules in common."""
    return type(error).__module__.partition(".")[0] in STORE_CLIENTS


def read_bytes(address: str, limit: int = -1) -> bytes:
    """A whole file, or its first `limit` bytes.

    Raises OSError as open() does, also for pipes and devices; InputError as `reaching` does.
    """
    if "://" not in address:
        if not stat.S_ISREG(os.stat(address).st_mode):
            # Reading a named pipe would wait for ever.
            raise OSError(errno.EINVAL, "no ordinary file")
        with open(address, "rb") as file:
            return file.read(limit)
    place = locate(address)
    with reaching(address):
        if place.protocol == "s3":
            return read_object(place.fs, place.path, limit, PATIENCE_S)
        return place.fs.cat_file(place.path, end=None if limit < 0 else limit, **patience(place))


def open_new(file: UPath) -> BinaryIO:
    """Opens a new file for writing. Raises OSError, or an error of the store's client, if that fails."""
    return open_object(file.fs, file.path) if not is_local(file) and file.protocol == "s3" else file.open("wb")


def remove_unfinished(folder: UPath, beginning: str) -> None:
    """Removes what an S3 store keeps of files that were not completed, whose paths below the folder begin so."""
    if not is_local(folder) and folder.protocol == "s3":
        abort_uploads(folder.fs, f"{folder.path.rstrip('/')}/{beginning}")


def patience(place: UPath) -> dict[str, float]:
    """An argument that bounds the time of a call by PATIENCE_S, for clients that take one."""
    return {"timeout": PATIENCE_S} if place.fs.async_impl else {}


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Raises InputError if a store does not answer, refuses these keys or breaks off, after its client's own retries.

    A file that is gone stays a FileNotFoundError: the others can be read. Local files keep their errors.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        if "://" in address and (isinstance(error, OSError) or is_of_a_store(error)):
            raise InputError(f"{unreachable(address, error)}. {RUN_AGAIN}") from error
        raise


def fetch_ahead(addresses: Iterable[str], limit: int = -1) -> Iterator[Callable[[], bytes]]:
    """For each file, in order, a function that returns its content, see read_bytes, or raises what that raises.

    Local files are read when the function is called. Of files in a store, FETCHES are on their way or wait in memory
    while the caller works on another one, AHEAD_BYTES of each; the function fetches a larger one.
    """
    first = AHEAD_BYTES if limit < 0 else min(limit, AHEAD_BYTES)
    addresses, again = tee(addresses)
    calls = ((path, partial(read_bytes, path, first if "://" in path else limit)) for path in again)
    with closing(call_ahead(calls, FETCHES)) as begun:
        for path, read in zip(addresses, begun, strict=True):
            yield partial(_whole, read, path, limit) if "://" in path else read


def call_ahead(calls: Iterable[tuple[str, Callable[[], Work]]], number: int) -> Iterator[Callable[[], Work]]:
    """For each call, in order, a function that gives its result or raises its error.

    calls: with the address that each one reads. Those that read a store begin while the caller works on an earlier one,
    `number` of them; the others when the function is called.
    """
    waiting: deque[Callable[[], Work]] = deque()
    # Without a file in a store, no thread is started.
    threads = ThreadPoolExecutor(number)
    try:
        for address, call in calls:
            waiting.append(threads.submit(call).result if "://" in address else call)
            if len(waiting) > number:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        threads.shutdown(cancel_futures=True)


def map_files(work: Callable[[str], Work], addresses: Iterable[str]) -> Iterator[Work]:
    """work(address) for each, in order; for files in a store, FETCHES at a time."""
    addresses = list(addresses)
    if not any("://" in address for address in addresses):
        yield from map(work, addresses)
        return
    with ThreadPoolExecutor(FETCHES) as threads:
        yield from threads.map(work, addresses)


def _whole(read: Callable[[], bytes], address: str, limit: int) -> bytes:
    """What was fetched of a file ahead, or the whole file if it may be larger than that."""
    content = read()
    return content if len(content) < AHEAD_BYTES else read_bytes(address, limit)


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


def version_of(info: dict) -> str:
    """What changes when a file of a store does: its size and its ETag or time. info: as the store's client gives it."""
    time = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    return f"{info['size']}:{time}"
