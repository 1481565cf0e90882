"""The page where something is amiss: outages, keys, limits, and another model than before."""

import pytest
from playwright.sync_api import Page, expect

from conf.workspace import Workspace
from tests.inference.service import test_page, toy
from tests.inference.service.test_page import FILM, KEY, drop, give_key, rows

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


def test_a_model_without_a_card_says_only_what_is_known(open_page, workspace):
    _, folder = toy.register(workspace)
    (folder / "model_card.json").unlink()
    with toy.running(workspace) as service:
        page = open_page(service)
        page.get_by_role("button", name="Model card").click()
        expect(page.locator("#card-content")).to_contain_text("Answers in")
        expect(page.locator("#card-content")).not_to_contain_text("undefined")
        expect(page.locator("#card-content p")).to_have_count(0)


@pytest.fixture
def locked(registry):
    with toy.running(registry, key=KEY) as running:
        yield running


def test_after_a_cancel_only_a_button_asks_for_the_key(open_page, locked):
    page = with_clock(open_page(locked))
    dialog = page.get_by_role("dialog", name="The service wants an API key")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("#notice")).to_have_text("The service wants an API key. Enter the key.")
    drop(page, FILM, FILM)
    expect(page.get_by_role("alert")).to_contain_text("The service wants an API key")
    choose = page.get_by_role("button", name="Open images")
    choose.focus()
    with page.expect_response("**/v1/model"):
        page.clock.run_for(POLL_MS)
    page.wait_for_timeout(300)
    expect(dialog).to_be_hidden()
    expect(choose).to_be_focused()
    page.get_by_role("banner").get_by_role("button", name="Enter the key").click()
    give_key(page, KEY)
    expect(page.locator("#findings label")).to_have_count(3)
    expect(page.locator("#films .state").nth(1)).to_contain_text("Bright")
    expect(page.get_by_role("button", name="Enter the key")).to_have_count(0)
    expect(choose).to_be_focused()


def test_a_key_that_no_request_can_carry_is_not_taken(open_page, locked):
    page = open_page(locked)
    dialog = page.get_by_role("dialog", name="The service wants an API key")
    give_key(page, f"{KEY}\u200b")
    expect(dialog.get_by_role("alert")).to_contain_text("character 17 of this one is U+200B")
    assert page.evaluate("sessionStorage.length") == 0
    page.evaluate("key => sessionStorage.setItem('chexscale-api-key', key)", f"{KEY}\u200b")
    page.reload()
    expect(dialog).to_be_visible()
    give_key(page, f" {KEY}\n")
    expect(page.locator("#model")).to_contain_text("version 1")
