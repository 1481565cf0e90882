"""An S3 server on this machine (versitygw), as a fixture for all tests; they are skipped without it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from etl.contract.row_groups import footer_of
from jobs.benchmarks.stores import link


@pytest.fixture(scope="module")
def s3_folder(tmp_path_factory) -> Path:
    """The folder of the server's buckets."""
    return tmp_path_factory.mktemp("buckets")


@pytest.fixture(scope="module")
def s3_server(s3_folder) -> Iterator[str]:
    """The server's address; its keys and its address are in the environment."""
    program = link.find_server()
    if not program:
        pytest.skip(f"no {link.PROGRAM} on PATH, and CHEXSCALE_VERSITYGW names none")
    with (
        link.s3_server(program, s3_folder) as port,
        pytest.MonkeyPatch.context() as environment,
    ):
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
            environment.delenv(name, raising=False)
        address = f"http://127.0.0.1:{port}"
        for name, value in {**link.KEYS, "AWS_ENDPOINT_URL": address, "NO_PROXY": "127.0.0.1"}.items():
            environment.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield address
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def store_link(s3_server, monkeypatch) -> Iterator[link.Link]:
    """A link to the server, through which clients reach it from now on; they wait for a second and try three times."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 1)
    with link.linked(int(s3_server.rpartition(":")[2])) as opened:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{opened.port}")
        s3fs.S3FileSystem.clear_instance_cache()
        footer_of.cache_clear()
        yield opened
    s3fs.S3FileSystem.clear_instance_cache()
