"""An S3 server on this machine (versitygw), as a fixture for all tests; they are skipped without it."""

from collections.abc import Iterator

import pytest
import s3fs

from jobs.benchmarks.stores import link


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory) -> Iterator[str]:
    """The server's address; its keys and its address are in the environment."""
    program = link.find_server()
    if not program:
        pytest.skip(f"no {link.PROGRAM} on PATH, and CHEXSCALE_VERSITYGW names none")
    with (
        link.s3_server(program, tmp_path_factory.mktemp("buckets")) as port,
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
