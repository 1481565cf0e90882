"""The images of jobs/container: their locks, and the service in a container as an operator runs it."""

import os
import re
import shutil
import subprocess
import time
from dataclasses import replace

import httpx
import pytest

from conf.workspace import Workspace
from etl.contract.images.lungs.files import describe_network
from inference.model.properties import LUNGS
from inference.model.registry import mlflow, use_store
from tests.etl.lung_networks import write_network
from tests.inference.service import toy
from tests.jobs.containers import KEY, build
from tests.jobs.locks import asked, blocks, names

EXTRAS = {
    "serving": ["serving"],
    "etl": ["etl", "serving"],
    "training": ["training", "inference"],
    "server": ["server"],
}


@pytest.mark.parametrize("target", EXTRAS)
def test_a_target_installs_a_part_of_the_one_lock(target):
    lock = f"jobs/container/{target}.lock"
    assert blocks(lock) - blocks("requirements.lock") == set()
    assert asked(EXTRAS[target]) - names(lock) == set()


def test_serving_installs_neither_torch_nor_spark():
    absent = {"torch", "torchvision", "pyspark", "petastorm", "mlflow"}
    assert names("jobs/container/serving.lock").isdisjoint(absent)


def address_of(podman, name: str) -> str:
    """Waits until the service in this container serves a model, and returns its address."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        said = podman("logs", name)
        if found := re.search(r"Next: open (http://[^\s,]+),", said):
            return found[1]
        assert podman("inspect", "--format={{.State.Running}}", name) == "true", said
        time.sleep(0.3)
    raise AssertionError(f"no model served within 90 s: {said}")


@pytest.mark.clusters
@pytest.mark.slow
def test_the_service_answers_in_a_container_that_may_write_nothing(podman, new_store, tmp_path):
    workspace = Workspace.at(str(tmp_path / "workspace"))
    new_store(workspace)
    use_store(workspace)
    # Its location tells where the workspace was before it was mounted elsewhere.
    mlflow.create_experiment("chexscale", workspace.artifacts.as_uri())
    # It crops films by a network, which each decoder opens.
    network = write_network(tmp_path / "network", 64)
    cropping = replace(toy.PROPERTIES, crop="lungs", square="stretch", lungs=describe_network(str(network))["sha256"])
    shutil.copytree(network, toy.register(workspace, cropping)[1] / LUNGS)
    picture = toy.film(200)
    picture[30:100, 20:50], picture[30:100, 80:110] = 90, 90
    # Mounted at another path, read-only, for another user.
    subprocess.run(["chmod", "-R", "a+rX", str(workspace.root)], check=True)
    image = build(podman, "serving")
    assert int(podman("image", "inspect", "--format={{.Size}}", image)) < 10**9
    for memory in ("512m", "2g"):
        name = f"chexscale-test-{os.getpid()}"
        limits = ["--read-only", "--tmpfs=/tmp", f"--memory={memory}", "--cpus=1", "--cap-drop=all"]
        mounts = ["--volume", f"{workspace.root}:/workspace:ro", "--env", f"CHEXSCALE_API_KEY={KEY}"]
        serve = ["python", "inference/serve.py", "--workspace=/workspace", "--serving.host=0.0.0.0", "--serving.port=0"]
        podman("run", "--detach", f"--name={name}", "--network=host", *limits, *mounts, image, *serve)
        try:
            address = address_of(podman, name)
            assert podman("exec", name, "id", "-u") == "1000"
            film = {"files": toy.png(picture)}
            answer = httpx.post(f"{address}/v1/predict", files=film, headers={"X-API-Key": KEY}, timeout=30)
            assert answer.status_code == 200, answer.text
            (result,) = answer.json()["results"]
            assert result["findings"][0]["probability"] > 0.5 and 90 < result["crop"]["width"] < 120
            assert httpx.post(f"{address}/v1/predict", files=film).status_code == 401
            probe = httpx.get(f"{address}/readyz", headers={"Host": "10.1.2.3:8000"})
            assert probe.status_code == 200
            podman("stop", "--time=30", name)
            assert podman("inspect", "--format={{.State.ExitCode}}", name) == "0"
        finally:
            podman("rm", "--force", name)
