"""The registered graph on Netron's page."""

import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from conf.workspace import Workspace
from jobs.benchmarks.stores.link import free_port
from jobs.setup.installer import find_uv, is_uv_missing, uv_environment
from tests.inference.service import toy

PROJECT = Path(__file__).parents[2]


def start(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "jobs/graph.py", *map(str, arguments)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def refused(*arguments: object) -> str:
    process = start(*arguments)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 2 and "Traceback" not in said, said
    return said


@pytest.fixture(scope="module")
def registry(new_store, tmp_path_factory) -> Workspace:
    """The second version is the champion; only INT8."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("registry") / "workspace"))
    new_store(workspace)
    for _ in range(2):
        toy.register(workspace)
    return workspace


@pytest.fixture(scope="module")
def netron() -> None:
    """The test is skipped if the package index does not provide Netron."""
    if is_uv_missing():
        pytest.skip("no uv: `make setup` fetches it")
    tried = [str(find_uv()), "tool", "run", "netron@latest", "--version"]
    ended = subprocess.run(tried, env=uv_environment(), capture_output=True, text=True, timeout=120)
    if ended.returncode:
        pytest.skip(f"the package index does not provide Netron: {ended.stderr.strip():.200}")


def fetch(address: str, process: subprocess.Popen) -> bytes:
    end = time.time() + 120
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.read()
        except (urllib.error.URLError, TimeoutError):
            assert process.poll() is None and time.time() < end, process.stdout.read()
            time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "version"), [([], 2), ([1], 1)])
def test_netron_shows_the_graph_of_the_version(registry, netron, arguments, version):
    port = free_port()
    process = start("--workspace", registry.root, "--port", port, *arguments)
    try:
        page = fetch(f"http://127.0.0.1:{port}/", process).decode()
        (file,) = re.findall(r'<meta name="file" content="(.*?)">', page)
        graph = fetch(f"http://127.0.0.1:{port}{file}", process)
        # With its weights, which Netron reads from beside it.
        assert fetch(f"http://127.0.0.1:{port}/data/model.bin", process)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=180)
    titled, shown = re.findall(r"^(chexscale version \d), INT8: (.*)$", said, re.MULTILINE)[0]
    assert titled == f"chexscale version {version}" and graph == Path(shown).read_bytes()
    assert f"Next: open http://127.0.0.1:{port}; Ctrl-C ends it" in said


def test_without_a_model_or_such_a_graph_the_next_step_is_named(registry, tmp_path):
    assert "run `python inference/register.py`" in refused("--workspace", tmp_path / "none")
    assert "known are 1, 2 (@champion)" in refused("--workspace", registry.root, 7)
    assert "has no graph" in (said := refused("--workspace", registry.root, "--mode", "onnx"))
    assert "choose another with --mode" in said


def test_a_port_that_is_taken_is_named_before_netron_starts(registry):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused("--workspace", registry.root, "--port", port)
        assert f"port {port} of 127.0.0.1 is taken" in said and "choose another --port" in said
