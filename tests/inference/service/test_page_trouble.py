"""The page in trouble: outages, keys, limits, and a model that has changed."""

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from conf.workspace import Workspace
from inference.model.reference import Reference
from tests.inference.service import toy
from tests.inference.service.page import BRIGHTER, FILM, KEY, drop, give_key, rows

POLL_MS = 15_000


@pytest.fixture(scope="module")
def service(page_service) -> toy.Running:
    return page_service


@pytest.fixture
def workspace(new_store, tmp_path) -> Workspace:
    """A workspace whose registry has no model."""
    workspace = Workspace.at(str(tmp_path / "registry"))
    new_store(workspace)
    return workspace


def with_clock(page: Page) -> Page:
    """Reloads the page with a clock that tests can run forward."""
    page.clock.install()
    page.reload()
    return page


def refuse(page: Page, route: str, status: int, times: int) -> None:
    """Answers `times` requests in the service's place, with the header Retry-After."""

    def answer(asked: Route) -> None:
        asked.fulfill(status=status, headers={"Retry-After": "1"}, json={"error": "full", "next": "wait"})

    page.route(route, answer, times=times)


def test_images_are_read_again_if_a_new_version_came_during_an_outage(open_page, workspace):
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
        expect(page.get_by_text("the images are being read again")).to_be_visible()
        expect(page.locator("#findings label")).to_have_count(3)
        assert rows(page) != before


def test_answers_that_differ_on_this_machine_are_said(open_page, workspace):
    _, folder = toy.register(workspace)
    films = np.full((1, toy.SIZE_PX, toy.SIZE_PX), 130, np.uint8)
    Reference((films,), {"int8": np.float32([[0.1, 0.475, 0.5]])}).save(folder)
    with toy.running(workspace) as service:
        said = "INT8 answers otherwise on this machine than on the one that measured the model: by up to 0.425 in a"
        assert said in service.log(said)
        page = open_page(service)
        expect(page.locator("#notice")).to_contain_text(said)
        page.get_by_role("button", name="Model card").click()
        expect(page.locator("#card-content")).to_contain_text(said)


def test_a_model_without_a_card_says_only_what_is_known(open_page, workspace):
    _, folder = toy.register(workspace)
    (folder / "model_card.json").unlink()
    with toy.running(workspace) as service:
        page = open_page(service)
        page.get_by_role("button", name="Model card").click()
        expect(page.locator("#card-content")).to_contain_text("Precision")
        expect(page.locator("#card-content")).not_to_contain_text("undefined")
        expect(page.locator("#card-content p")).to_have_count(0)


@pytest.fixture(scope="module")
def locked(registry):
    with toy.running(registry, "--serving.requests_per_minute=0", key=KEY) as running:
        yield running


def test_after_a_cancel_only_a_button_asks_for_the_key(open_page, locked):
    page = with_clock(open_page(locked))
    dialog = page.get_by_role("dialog", name="The service needs an API key")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("#notice")).to_have_text("The service needs an API key.")
    drop(page, FILM, FILM)
    expect(page.get_by_role("alert")).to_contain_text("The service needs an API key")
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


def test_a_key_that_no_request_can_carry_is_not_accepted(open_page, locked):
    page = open_page(locked)
    dialog = page.get_by_role("dialog", name="The service needs an API key")
    give_key(page, f"{KEY}\u200b")
    expect(dialog.get_by_role("alert")).to_contain_text("character 17 of this one is U+200B")
    assert page.evaluate("sessionStorage.length") == 0
    page.evaluate("key => sessionStorage.setItem('chexscale-api-key', key)", f"{KEY}\u200b")
    page.reload()
    expect(dialog).to_be_visible()
    give_key(page, f" {KEY}\n")
    expect(page.locator("#model")).to_contain_text("version 1")


def test_requests_keep_to_the_limits_of_the_service(open_page, registry):
    small, large = toy.film(), toy.film(side_px=256)
    mb = len(toy.png(small)) / 1e6
    limits = {"max_files": 3, "max_file_mb": 2 * mb, "max_request_mb": 2.5 * mb}
    with toy.running(registry, *(f"--serving.{name}={limit}" for name, limit in limits.items())) as service:
        page = open_page(service)
        expect(page.locator("#model")).to_contain_text("version 1")
        drop(page, *[small] * 4, large, *[small] * 8)
        states = page.locator("#films .state")
        for place in range(13):
            expect(states.nth(place)).to_contain_text("the file is larger than" if place == 4 else "Bright")
        page.locator("#films input").nth(4).check()
        expect(page.get_by_role("alert")).to_contain_text("Send a smaller file.")
        assert not [line for line in service.lines if " 413 " in line]


def test_a_short_trouble_is_waited_out(open_page, service):
    page = open_page(service)
    refuse(page, "**/v1/explain", 429, times=2)
    refuse(page, "**/v1/predict", 503, times=3)
    drop(page, *[FILM] * 10)
    expect(page.get_by_text("Full: trying again in 1 second.")).to_be_visible()
    expect(page.locator("#findings label")).to_have_count(3)
    for place in range(1, 10):
        expect(page.locator("#films .state").nth(place)).to_contain_text("Bright")


def test_what_failed_in_an_outage_is_read_again_on_a_click_or_when_the_service_is_back(open_page, service):
    page = with_clock(open_page(service))
    states, failed = page.locator("#films .state"), "the service cannot be reached"
    again = page.get_by_role("button", name="Try all again")
    page.context.set_offline(True)
    drop(page, FILM, b"no image", FILM)
    expect(states.last).to_have_text(failed, timeout=15_000)
    expect(states.first).to_have_text(failed, timeout=15_000)
    page.context.set_offline(False)
    again.click()
    expect(states.last).to_contain_text("Bright")
    expect(page.locator("#findings label")).to_have_count(3)
    expect(page.locator("#films input").first).to_be_focused()
    expect(again).to_be_hidden()  # trying again does not help a file that is not an image
    expect(states.nth(1)).to_contain_text("no PNG")

    page.context.set_offline(True)
    drop(page, BRIGHTER, FILM)
    expect(states.last).to_have_text(failed, timeout=15_000)
    page.clock.run_for(POLL_MS)
    expect(page.locator("#model")).to_have_text("no model")
    page.context.set_offline(False)
    page.clock.run_for(POLL_MS)
    expect(states.last).to_contain_text("Bright")
    expect(again).to_be_hidden()
