"""The service with a package instead of a registry."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from playwright.sync_api import expect

from conf.workspace import Workspace
from inference.model.model_files import find_model
from inference.model.package import MANIFEST
from inference.model.packing import write_package
from tests.inference.service import toy
from tests.inference.service.page import FILM, drop


@pytest.fixture(scope="module")
def package(registry, tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("package") / "model.zip"
    write_package(find_model(registry, toy.NAME), [], file)
    return str(file)


@pytest.fixture(scope="module")
def service(package, tmp_path_factory):
    nowhere = Workspace.at(str(tmp_path_factory.mktemp("nowhere")))
    with toy.running(nowhere, f"--model={package}", "--serving.requests_per_minute=0") as running:
        yield running
    assert list(nowhere.root.iterdir()) == []


def test_it_answers_as_with_the_registry_and_says_which_package_it_is(service, page_service, package):
    film = toy.png(np.asarray(toy.film(170)))
    assert page_service.client.get("/v1/model").json()["package"] is None
    assert service.predict(film).json() == page_service.predict(film).json()
    described = service.client.get("/v1/model").json()
    identity = find_model(Workspace.at("/nowhere"), "", package=package).package
    assert described["package"] == identity
    assert described["registry"] == {"reachable": True, "since": None, "reason": None}
    assert service.client.get("/readyz").status_code == 200
    assert f"Serving chexscale version 1, package {identity[:12]}, int8." in service.log("Next: open")


def test_a_package_whose_graph_cannot_be_opened_is_reported(package, tmp_path):
    """Its hashes fit, as if it had been packaged by a program with a bug."""
    shutil.unpack_archive(package, tmp_path / "package")
    manifest, graph = tmp_path / "package" / MANIFEST, tmp_path / "package" / "int8" / "model.xml"
    graph.write_bytes(b"no graph")
    fields = json.loads(manifest.read_text())
    facts = {"bytes": 8, "sha256": hashlib.sha256(b"no graph").hexdigest()}
    manifest.write_text(json.dumps({**fields, "files": {**fields["files"], "int8/model.xml": facts}}))
    with toy.running(
        Workspace.at(str(tmp_path)), f"--model={tmp_path / 'package'}", "--serving.reload_s=0.5"
    ) as service:
        answer = service.client.get("/readyz")
        assert answer.status_code == 503
        assert "cannot be opened in mode int8" in answer.json()["error"]
        assert "start it with another package" in answer.json()["next"]
        assert "Serving no model yet (chexscale version 1, package" in service.log("Serving no model yet")


def test_the_page_says_that_the_model_is_fixed(service, open_page):
    page = open_page(service)
    identity = service.client.get("/v1/model").json()["package"]
    expect(page.locator("#model")).to_have_text(f"chexscale · version 1 · INT8 · fixed package {identity[:12]}")
    drop(page, FILM)
    expect(page.get_by_role("group", name="1 finding called")).to_be_visible()
