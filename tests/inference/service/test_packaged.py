"""The service with a package instead of a registry."""

import numpy as np
import pytest
from playwright.sync_api import expect

from conf.workspace import Workspace
from inference.model.model_files import find_model
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


def test_it_answers_as_with_the_registry_and_says_which_package_it_is(service, registry, package):
    film = toy.png(np.asarray(toy.film(170)))
    with toy.running(registry) as following:
        expected = following.predict(film).json()
        assert following.client.get("/v1/model").json()["package"] is None
    assert service.predict(film).json() == expected
    described = service.client.get("/v1/model").json()
    identity = find_model(Workspace.at("/nowhere"), "", package=package).package
    assert described["package"] == identity
    assert described["registry"] == {"reachable": True, "since": None, "reason": None}
    assert service.client.get("/readyz").status_code == 200
    assert f"Serving chexscale version 1, package {identity[:12]}, int8." in service.log("Next: open")


def test_the_page_says_that_the_model_is_fixed(service, open_page):
    page = open_page(service)
    identity = service.client.get("/v1/model").json()["package"]
    expect(page.locator("#model")).to_have_text(f"chexscale · version 1 · INT8 · fixed package {identity[:12]}")
    drop(page, FILM)
    expect(page.get_by_role("group", name="1 finding called")).to_be_visible()
