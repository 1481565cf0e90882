"""Whole objects of S3, read and written by Arrow's client in C++, with what s3fs found in the environment.

A film of 380 kB takes 0.9 ms of CPU instead of 2.0, and holds Python's lock for little of that, so other threads
decode meanwhile. What is written is sent in the background. s3fs stays the client that knows profiles, roles and
endpoints. It does what Arrow cannot: stores behind a proxy, with certificates of their own or in another region, and
names such as a//b.
"""

import time
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

# Arrow's tries. s3fs tries again what Arrow could not read, but nobody else can finish an object that Arrow has begun:
# ten tries last half a minute.
READ_ATTEMPTS, WRITE_ATTEMPTS = 3, 10
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 5, 10
KEYS_LIVE_S = 60
"""seconds after which botocore is asked for the keys again; it renews temporary ones minutes before they end"""
Keys = tuple[str, str, str | None]
REST_S = 60
"""seconds for which only s3fs is used after Arrow's client failed, because trying it takes its timeouts each time"""
# Until when. By id: clients of fsspec with equal settings are equal, although the environment may have changed.
_arrow_rests: dict[int, float] = {}


def read_object(store: AbstractFileSystem, key: str, limit: int, patience_s: float) -> bytes:
    """The first `limit` bytes of an object, or all of them if `limit` is negative. Raises what s3fs raises.

    store: an s3fs.S3FileSystem. key: bucket/object. patience_s: seconds for s3fs, with all its attempts.
    """
    by_arrow = _is_for_arrow(store, key)
    if by_arrow:
        try:
            with _arrow(store, READ_ATTEMPTS).open_input_file(key) as file:
                return file.read(file.size() if limit < 0 else min(limit, file.size()))
        except Exception:
            # s3fs can read it, or says better what is wrong: Arrow asks with HEAD, whose answer has no message.
            pass
    content = _read_by_s3fs(store, key, limit, patience_s)
    if by_arrow:
        _arrow_rests[id(store)] = time.monotonic() + REST_S
    return content


def open_object(store: AbstractFileSystem, key: str) -> BinaryIO:
    """Opens a new object for writing. Parts of 10 MB are on their way, several at once, while the caller continues.

    Raises OSError, when it is opened, written or closed, if the store takes no more.
    """
    if _is_for_arrow(store, key):
        try:
            return _arrow(store, WRITE_ATTEMPTS).open_output_stream(key)
        except Exception:
            # s3fs can write it, or says better what is wrong.
            _arrow_rests[id(store)] = time.monotonic() + REST_S
    return store.open(key, "wb")


def abort_uploads(store: AbstractFileSystem, prefix: str) -> None:
    """Removes the parts of objects below bucket/prefix that were begun and not completed: Arrow leaves them."""
    bucket, key, _ = store.split_path(prefix)
    for upload in store.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", []):
        store.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def _is_for_arrow(store: AbstractFileSystem, key: str) -> bool:
    return "//" not in key and time.monotonic() >= _arrow_rests.get(id(store), 0)


def _read_by_s3fs(store: AbstractFileSystem, key: str, limit: int, patience_s: float) -> bytes:
    try:
        return store.cat_file(key, end=None if limit < 0 else limit, timeout=patience_s)
    except OSError:
        # A store refuses to send a range of a file that is empty.
        if limit >= 0 and store.info(key)["size"] == 0:
            return b""
        raise


def _arrow(store: AbstractFileSystem, attempts: int) -> "S3FileSystem":
    return _client_of(store, id(store), int(time.monotonic() / KEYS_LIVE_S), attempts)


@lru_cache(maxsize=8)
def _client_of(store: AbstractFileSystem, identity: int, minute: int, attempts: int) -> "S3FileSystem":
    """Arrow's client with the address, region and present keys of an s3fs client.

    identity, minute: a new value of either makes a new client; see _arrow_rests and KEYS_LIVE_S.
    """
    client = sync(store.loop, store.set_session)
    keys = None if store.anon else sync(store.loop, _keys_of, store)
    return _connect(client.meta.endpoint_url, client.meta.region_name, keys, attempts)


@lru_cache(maxsize=8)
def _connect(endpoint: str, region: str | None, keys: Keys | None, attempts: int) -> "S3FileSystem":
    # Imported here, because infer.py, which lists its files by the same module, is installed without pyarrow.
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    scheme, _, host = endpoint.partition("://")
    # Amazon's own addresses have the bucket in them, which Arrow knows by itself.
    own_server = not host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    names = ("access_key", "secret_key", "session_token")
    return S3FileSystem(
        **(dict(zip(names, keys, strict=True)) if keys else {"anonymous": True}),
        region=region if region not in (None, "aws-global") else "us-east-1",
        scheme=scheme,
        endpoint_override=host if own_server else None,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
    )


async def _keys_of(store: AbstractFileSystem) -> Keys | None:
    found = await store.session.get_credentials()
    return tuple(await found.get_frozen_credentials())[:3] if found else None
