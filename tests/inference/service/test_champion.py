"""The champion appears, changes and becomes unreachable while a real service answers."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable

import pytest

from conf.workspace import Workspace
from tests.inference.service import toy
from tests.processes import children

FILM = toy.png(toy.film(150))
RELOAD_S = 0.2


@pytest.fixture
def workspace(new_store, tmp_path) -> Workspace:
    workspace = Workspace.at(str(tmp_path / "registry"))
    workspace.root.mkdir()
    return workspace


@pytest.fixture
def service(workspace):
    with toy.running(workspace, f"--serving.reload_s={RELOAD_S}", "--serving.requests_per_minute=0") as running:
        yield running


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def model_of(service: toy.Running) -> dict:
    return service.client.get("/v1/model").json()


class Callers:
    """Threads that ask for findings all the time and keep the answers."""

    def __init__(self, service: toy.Running, number: int = 3):
        self.answers: list[tuple[int, dict]] = []
        self._service, self._stop = service, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            response = self._service.predict(FILM, FILM)
            self.answers.append((response.status_code, response.json()))


def test_a_service_without_a_champion_waits_for_one_and_follows_it(service, workspace, new_store):
    # One service goes through all of it: each start takes seconds.
    assert service.client.get("/healthz").status_code == 200
    for response in (service.client.get("/readyz"), service.predict(FILM), service.client.get("/v1/model")):
        assert response.status_code == 503
        assert response.json()["error"] == "there is no model yet: there is no registry"
        assert "python inference/register.py" in response.json()["next"]
    service.log(until="Serving no model yet (there is no registry)")

    new_store(workspace)
    wait_for(lambda: "no version of chexscale" in service.predict(FILM).json()["error"], "the empty registry")
    # The process that asks the registry is replaced if it dies.
    (watch,) = children(service.process.pid, "inference.service.engine.watch")
    os.kill(watch, signal.SIGKILL)
    _, first = toy.register(workspace)
    wait_for(lambda: service.client.get("/readyz").status_code == 200, "the first champion")

    # Another vocabulary at another size takes over, and no request is dropped or mixed up.
    with Callers(service) as callers:
        wait_for(lambda: len(callers.answers) > 5, "answers of the first champion")
        _, second = toy.register(workspace, toy.other_model(), toy.WEIGHTS[:1])
        wait_for(lambda: callers.answers[-1][1].get("model", {}).get("version") == 2, "answers of the second champion")
    assert {status for status, _ in callers.answers} == {200}
    for _, answer in callers.answers:
        expected = {1: ["Bright", "Dark", "Never"], 2: ["Other"]}[answer["model"]["version"]]
        for result in answer["results"]:
            assert [finding["name"] for finding in result["findings"]] == expected
            assert result["distance"] == pytest.approx(22, abs=1)
    assert model_of(service)["size_px"] == 48
    assert service.metric("chexscale_reloads_total") == 2

    # The third champion is damaged: the second stays in use, and the service says so.
    third, folder = toy.register(workspace)
    assert third == 3
    # The service may have opened it before the damage, so a damaged fourth follows.
    (folder / "int8" / "model.xml").write_text("damaged")
    fourth = workspace.artifacts / "fourth"
    shutil.copytree(folder.parents[1], fourth)
    client = toy.mlflow.MlflowClient()
    version = int(client.create_model_version(toy.NAME, fourth.as_uri()).version)
    toy.promote(workspace, toy.NAME, version, "test")
    wait_for(lambda: (model_of(service)["registry"]["reason"] or "").startswith("version 4 is"), "the damaged one")
    registry = model_of(service)["registry"]
    assert (
        registry["reason"] == "version 4 is the champion, but cannot be opened in mode int8" and registry["reachable"]
    )
    before = model_of(service)["version"]
    assert before in (2, 3)
    service.log(until="version 4 cannot be opened")

    # The registry disappears, and the files of the models too: the service keeps its model, and says so once.
    gone = workspace.root / "gone.db"
    workspace.tracking_db.rename(gone)
    for served in (first, second, folder):
        with (served / "int8" / "model.bin").open("r+b") as weights:
            weights.truncate(0)
        shutil.rmtree(served)
    wait_for(lambda: not model_of(service)["registry"]["reachable"], "the registry to be missed")
    registry = model_of(service)["registry"]
    assert registry["reason"] == "there is no registry" and registry["since"].startswith("20")
    assert service.metric("chexscale_registry_reachable") == 0
    assert service.predict(FILM).status_code == 200 and service.client.get("/readyz").status_code == 200
    time.sleep(4 * RELOAD_S)
    assert model_of(service)["registry"] == registry
    said = [line for line in service.lines if "there is no" in line and "still serving version" in line]
    assert len(said) == 1

    # A damaged registry; then the old one is back in its place, with a new champion.
    workspace.tracking_db.write_bytes(b"no database" * 1000)
    wait_for(lambda: "cannot be read" in model_of(service)["registry"]["reason"], "the damage to be seen")
    assert service.predict(FILM).status_code == 200
    gone.replace(workspace.tracking_db)
    version, _ = toy.register(workspace)
    wait_for(lambda: model_of(service)["version"] == version, "the registry to be back")
    assert model_of(service)["registry"] == {"reachable": True, "since": None, "reason": None}
