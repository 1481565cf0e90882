"""Files in a local folder, or in a store that fsspec can reach (s3://, abfss://, hdfs://, ...)."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from fsspec.registry import known_implementations
from upath import UPath

from conf.errors import InputError
from conf.places import CLIENTS, FILES, place_of, unknown_store
from etl.contract.s3 import abort_uploads, open_object, read_object

Work = TypeVar("Work")
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


def version_of(info: dict) -> str:
    """What changes when a file of a store does: its size and its ETag or time. info: as the store's client gives it."""
    time = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    return f"{info['size']}:{time}"
