"""A registry with one toy model, a service on it that several files share, and a browser."""

import json
import shutil
from collections.abc import Iterator

import pytest

# Imported first, because it silences what mlflow would log on import.
from training.record.store import use_store  # isort: skip

import mlflow
from playwright.sync_api import Browser, Page, sync_playwright

from conf.workspace import Workspace
from conf.writing import write_json
from inference.model.registry import TESTED_AT
from tests.inference.service import toy
from tests.inference.service.page import DESKTOP, KEY, OPTIONS, REFUSED, TEST_ELSEWHERE, model_card


@pytest.fixture(scope="module")
def registry(new_store, tmp_path_factory) -> Workspace:
    """A registry whose champion is the toy model, which knows the boxes of one film."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("registry")))
    register_toy(workspace, new_store)
    return workspace


def register_toy(workspace: Workspace, new_store) -> None:
    new_store(workspace)
    known = toy.film(140, toy.SIZE_PX)
    toy.register(workspace, boxes=toy.boxes_of(known, [[0, 0.25, 0.5, 0.1, 0.2]]))


@pytest.fixture(scope="session")
def page_service(new_store, tmp_path_factory) -> Iterator[toy.Running]:
    """A service on such a registry, whose model also has a card and was tested elsewhere."""
    registry = Workspace.at(str(tmp_path_factory.mktemp("shared")))
    register_toy(registry, new_store)
    (card,) = registry.artifacts.rglob("model_card.json")
    write_json(card, model_card())
    use_store(registry)
    mlflow.MlflowClient().set_model_version_tag("chexscale", "1", f"{TESTED_AT}hospital_b", json.dumps(TEST_ELSEWHERE))
    with toy.running(registry, "--serving.requests_per_minute=0") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one file of tests: while it is open, Playwright's event loop runs, and no other loop can start."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=[f"--{option}" for option in OPTIONS])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser):
    """Opens a service's page; at the end it must have asked no other host, and its code must have raised no error."""
    opened = []

    def open_(service: toy.Running, **options) -> Page:
        context = browser.new_context(viewport=DESKTOP, **options)
        page = context.new_page()
        page.set_default_timeout(10_000)
        seen = {"asked": [], "errors": []}
        opened.append((service, context, seen))
        page.on("request", lambda request: seen["asked"].append(request.url))
        page.on("pageerror", lambda error: seen["errors"].append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and seen["errors"].append(message.text))
        page.goto(service.address)
        return page

    yield open_
    for service, context, seen in opened:
        context.close()
        assert seen["asked"] and all(url.startswith((service.address, "blob:", "data:")) for url in seen["asked"])
        assert not [url for url in seen["asked"] if "Doe" in url or KEY in url]
        # The browser itself logs every status above 399 as an error.
        assert [error for error in seen["errors"] if not error.startswith(REFUSED)] == []
