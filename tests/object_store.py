"""An S3 server on this machine (versitygw), as a fixture for all tests; they are skipped without it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

PROGRAM = "versitygw"


VARIABLE = "CHEXSCALE_VERSITYGW"


KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest", "AWS_REGION": "us-east-1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory) -> Iterator[str]:
    """The server's address; its keys and its address are in the environment."""
    program = os.environ.get(VARIABLE) or shutil.which(PROGRAM) or shutil.which(Path.home() / "go" / "bin" / PROGRAM)
    if not program:
        pytest.skip(f"no {PROGRAM} on PATH, and {VARIABLE} names none")
    port, root = free_port(), tmp_path_factory.mktemp("buckets")
    owner = {"ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
    command = [program, "--quiet", "--port", f"127.0.0.1:{port}", "posix", str(root)]
    process = subprocess.Popen(command, env={**os.environ, **owner}, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while not answers(port):
            assert time.monotonic() < end, f"{command} does not listen"
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            time.sleep(0.05)
        with pytest.MonkeyPatch.context() as environment:
            for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
                environment.delenv(name, raising=False)
            address = f"http://127.0.0.1:{port}"
            for name, value in {**KEYS, "AWS_ENDPOINT_URL": address, "NO_PROXY": "127.0.0.1"}.items():
                environment.setenv(name, value)
            s3fs.S3FileSystem.clear_instance_cache()
            yield address
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        process.kill()
        process.wait()
