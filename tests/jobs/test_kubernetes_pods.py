"""The pods of the service and of the MLflow server as the manifests describe them, without a cluster."""

import httpx
import pytest

from conf.workspace import Workspace
from jobs.benchmarks.stores.link import free_port
from tests.inference.service import toy
from tests.jobs.containers import KEY, build
from tests.jobs.manifests import inside, objects
from tests.jobs.pods import MINE
from tests.jobs.test_compose import answers
from tests.processes import wait_for


def deployment(name: str) -> dict:
    (found,) = [one for one in objects("site") if one["kind"] == "Deployment" and one["metadata"]["name"] == name]
    return found


@pytest.mark.clusters
@pytest.mark.slow
def test_a_model_of_the_mlflow_server_answers_films(play, podman, tmp_path):
    for target in ("server", "serving"):
        build(podman, target)
    server, port = deployment("mlflow"), free_port()
    probes_pass(server, f"{play(server, 'mlflow', ports={'http': port})}:5000")
    # MLflow answers under this name too, so that `kubectl port-forward` reaches it.
    workspace = Workspace.at(str(tmp_path / "workspace"), f"http://localhost:{port}")
    toy.register_on_server(workspace, tmp_path / "registered")

    serving = deployment("chexscale-serving")
    address = f"{play(serving, 'chexscale-serving')}:8000"
    probes_pass(serving, address)
    film, named = {"files": toy.png(toy.film(170))}, {"Host": "chexscale-serving:8000"}
    with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
        answer = client.post("/v1/predict", files=film, headers={"X-API-Key": KEY, **named})
        assert answer.json()["results"][0]["findings"][0]["probability"] > 0.5
        assert client.post("/v1/predict", files=film, headers=named).status_code == 401
        # As Prometheus does.
        assert client.get("/metrics").status_code == 401
        metrics = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    (wanted,) = [metric["name"] for metric in inside(objects("site"), "metric")]
    assert f"\n{wanted} 0.0\n" in metrics
    container = f"{MINE}-chexscale-serving-serving"
    assert podman("exec", container, "id", "-u") == "1000"
    with pytest.raises(AssertionError, match="Read-only file system"):
        podman("exec", container, "touch", "/app/file")
    podman("stop", "--time=30", container)
    assert podman("inspect", "--format={{.State.ExitCode}}", container) == "0"


def probes_pass(thing: dict, address: str) -> None:
    """Calls the probes as a kubelet does, by the pod's address."""
    probes = [value["httpGet"]["path"] for key in PROBES for value in inside(thing, key)]
    assert probes
    for path in probes:
        wait_for(lambda path=path: answers(f"http://{address}{path}"), seconds=180)


PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
