"""jobs/container/compose.yaml as a user starts it: a model registered on the MLflow server answers films."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from conf.workspace import Workspace
from jobs.benchmarks.stores import link
from tests.inference.service import toy
from tests.jobs.containers import BASE, FOLDER, KEY, build, image_of
from tests.processes import wait_for

# Resolves the names of containers.
NETWORK = "/usr/lib/podman/aardvark-dns"
STORE = "docker.io/versity/versitygw:v1.8.0"


@pytest.fixture
def compose(podman, networks, tmp_path, monkeypatch) -> Callable[..., str]:
    """Runs podman-compose on the file; all that it made is gone at the end."""
    program = link.find_server()
    if not (shutil.which("podman-compose") and Path(NETWORK).exists() and program):
        pytest.skip(f"needs podman-compose, aardvark-dns and {link.PROGRAM}")
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    for target in ("server", "serving"):
        text = text.replace(f"localhost/chexscale-{target}", build(podman, target))
    # No registry has the store's image here, which has its program in this place (the Dockerfile of its release).
    shutil.copy(program, tmp_path / "versitygw")
    (tmp_path / "Containerfile").write_text(f"FROM {BASE}\nCOPY versitygw /usr/local/bin/versitygw\n", encoding="utf-8")
    podman("build", "--tag", image_of("store"), str(tmp_path))
    assert STORE in text
    file = tmp_path / "compose.yaml"
    file.write_text(text.replace(STORE, image_of("store")), encoding="utf-8")
    monkeypatch.setenv("CHEXSCALE_MLFLOW_PORT", str(link.free_port()))
    monkeypatch.setenv("CHEXSCALE_SERVE_PORT", str(link.free_port()))
    monkeypatch.setenv("CHEXSCALE_STORE_KEY", "a key of the store")
    monkeypatch.setenv("CHEXSCALE_API_KEY", KEY)

    def run(*arguments: str) -> str:
        command = ["podman-compose", "-p", f"chexscale{os.getpid()}", "-f", str(file), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        yield run
    finally:
        run("down", "--volumes")


@pytest.mark.clusters
@pytest.mark.slow
def test_a_model_registered_on_the_server_is_served_from_the_object_store(compose, podman, tmp_path):
    compose("up", "--detach", "--no-build")
    server, service = (
        f"http://127.0.0.1:{os.environ[name]}" for name in ("CHEXSCALE_MLFLOW_PORT", "CHEXSCALE_SERVE_PORT")
    )
    for address in (f"{server}/health", f"{service}/healthz"):
        wait_for(lambda address=address: answers(address))
    assert httpx.get(f"{service}/readyz").status_code == 503
    workspace = Workspace.at(str(tmp_path / "workspace"), server)
    run_id = toy.register_on_server(workspace, tmp_path / "registered")
    wait_for(lambda: httpx.get(f"{service}/readyz").status_code == 200)
    film = {"files": toy.png(toy.film(170))}
    answer = httpx.post(f"{service}/v1/predict", files=film, headers={"X-API-Key": KEY}, timeout=30)
    assert answer.json()["results"][0]["findings"][0]["probability"] > 0.5
    kept = podman("exec", f"chexscale{os.getpid()}_store_1", "find", "/data/models", "-name", "model_card.json")
    assert run_id in kept


def answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False
