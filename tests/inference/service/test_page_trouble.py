"""The page where something is amiss: outages, keys, limits, and another model than before."""

import pytest
from playwright.sync_api import Page, expect

from conf.workspace import Workspace
from tests.inference.service import test_page, toy
from tests.inference.service.test_page import FILM, drop, rows

# Fixtures, which are looked for in this module.
browser, open_page = test_page.browser, test_page.open_page
POLL_MS = 15_000


@pytest.fixture
def workspace(new_store, tmp_path) -> Workspace:
    """Without a model."""
    workspace = Workspace.at(str(tmp_path / "registry"))
    new_store(workspace)
    return workspace


def with_clock(page: Page) -> Page:
    """Its time can be run forward."""
    page.clock.install()
    page.reload()
    return page


def test_a_version_that_comes_during_an_outage_reads_the_images_again(open_page, workspace):
    toy.register(workspace)
    with toy.running(workspace, "--serving.reload_s=0.3") as service:
        page = with_clock(open_page(service))
        drop(page, FILM)
        expect(page.locator("#findings label")).to_have_count(3)
        before = rows(page)
        page.context.set_offline(True)
        page.clock.run_for(POLL_MS)
        expect(page.locator("#model")).to_have_text("no model")
        toy.register(workspace, weights=-toy.WEIGHTS)
        while service.client.get("/v1/model").json()["version"] != 2:
            page.wait_for_timeout(100)
        page.context.set_offline(False)
        page.clock.run_for(POLL_MS)
        expect(page.locator("#model")).to_have_text("chexscale · version 2 · INT8")
        expect(page.get_by_text("the images are read again")).to_be_visible()
        expect(page.locator("#findings label")).to_have_count(3)
        assert rows(page) != before
