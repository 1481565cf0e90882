"""The page as a person uses it, in the system's Chromium, with the service in a process of its own."""

import base64

import pytest
from playwright.sync_api import Page, expect

from conf.workspace import Workspace
from etl.contract.images.kinds import KINDS
from tests.inference.service import toy
from tests.inference.service.page import BRIGHTER, DROP, FILM, KEY, drop, give_key, rows

STRANGE = toy.film(250)
KNOWN = toy.film(140, toy.SIZE_PX)
PHONE = {"width": 360, "height": 740}
# A window of 1280 x 1024 pixels, magnified to 400%.
MAGNIFIED = {"width": 320, "height": 256}


@pytest.fixture(scope="module")
def service(page_service) -> toy.Running:
    return page_service


@pytest.fixture
def page(open_page, service) -> Page:
    return open_page(service)


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_dropped_image_is_shown_with_its_findings_called_ones_first(page, service):
    with page.expect_response("**/v1/explain") as asked:
        drop(page, FILM)
    answer = asked.value.json()
    assert answer["name"] == "image"  # the file's own name never leaves the browser
    expect(page.get_by_role("group", name="1 finding called")).to_be_visible()
    shares = {finding["name"]: f"{100 * finding['probability']:.1f}%" for finding in answer["findings"]}
    expect(page.locator("#findings")).to_contain_text("Thresholds: operating point youden")
    assert rows(page) == [
        f"Bright {shares['Bright']} threshold 50.0% , called",
        f"Dark {shares['Dark']} threshold 40.0%",
        f"Never {shares['Never']} no threshold",
    ]
    mark, fill = (page.locator(f"#findings label >> nth=1 >> .{part}").bounding_box() for part in ("mark", "fill"))
    assert fill["x"] + fill["width"] < mark["x"]  # not called: the bar ends before the mark
    assert page.get_by_role("img", name="The film", exact=True).evaluate("image => image.naturalWidth") == 128
    expect(page.locator("#said")).to_have_text(f"Called: Bright {shares['Bright']}.")
    expect(page.get_by_text("Research use only, not for clinical use.")).to_be_visible()
    expect(page.get_by_text("chexscale · version 1 · INT8")).to_be_visible()


def test_images_are_chosen_and_pasted_too(page):
    page.set_input_files("#files", {"name": "film", "mimeType": "", "buffer": toy.png(FILM)})
    expect(page.locator("#findings label")).to_have_count(3)
    paste = DROP.replace("document.body.dispatchEvent(new DragEvent", "dispatchEvent(new ClipboardEvent")
    paste = paste.replace('"drop", {dataTransfer', '"paste", {clipboardData')
    page.evaluate(paste, [["image.png", base64.b64encode(toy.png(BRIGHTER)).decode()]])
    expect(page.locator("#films label")).to_have_count(2)


def test_the_keyboard_alone_chooses_findings_and_reads_the_card(page):
    drop(page, FILM)
    expect(page.get_by_role("img", name="Heat map of Bright")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the findings")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    bright, dark = (page.get_by_role("radio", name=name) for name in ("Bright", "Dark"))
    expect(bright).to_be_focused()
    assert bright.evaluate("radio => getComputedStyle(radio.parentElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowDown")
    expect(dark).to_be_checked()
    expect(page.get_by_role("img", name="Heat map of Dark")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("img", name="Heat map of Bright")).to_be_visible()

    page.get_by_role("button", name="Model card").press("Enter")
    card = page.get_by_role("dialog", name="Model card: chexscale version 1")
    expect(card.get_by_role("row", name="Bright 0.912 0.871 to 0.946 50.0%")).to_be_visible()
    expect(card.get_by_role("row", name="sex F")).to_be_visible()
    for part in (
        "Gate passed",
        "Mean AUROC falls by 0.0010.",
        "Too few patients to say much about Bright",
        "62.5%",
        "where the network looked, not that",
        "hospital-b, INT8, 2026-11-01: 0.812 (0.780 to 0.840) over 2 findings, change -0.100 (-0.150 to -0.050) over 1",
        "1,000 films of 300 patients; not checked against the training",
    ):
        expect(card.get_by_text(part)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Model card")).to_be_focused()


def test_the_slider_changes_the_opacity_of_the_heat_map(page):
    drop(page, FILM)
    heat, slider = page.locator("#heat"), page.get_by_role("slider", name="Opacity of the heat map")
    expect(heat).to_have_css("opacity", "0.5")
    slider.press("ArrowRight")
    expect(heat).to_have_css("opacity", "0.55")
    expect(page.locator("#opacity-value")).to_have_text("55%")
    slider.press("Home")
    expect(heat).to_have_css("opacity", "0")
    page.get_by_role("checkbox", name="Heat map").press("Space")
    expect(heat).to_be_hidden()


def test_over_a_film_that_is_not_square_the_heat_map_ends_where_the_film_does(page):
    drop(page, FILM[:, :64])
    expect(page.locator("#heat")).to_have_css("clip-path", "inset(0% 25%)")
    page.get_by_role("checkbox", name="As the model sees it").check()
    expect(page.get_by_role("img", name="The film as the model sees it")).to_be_visible()
    expect(page.locator("#heat")).to_have_css("clip-path", "none")


def test_known_boxes_lie_in_their_places_and_a_warning_comes_first(page):
    drop(page, KNOWN)
    # This checkbox appears with the film itself, after which nothing is drawn again.
    expect(page.get_by_role("checkbox", name="As the model sees it")).to_be_visible()
    box, stage = page.locator(".box").bounding_box(), page.locator("#stage").bounding_box()
    place = [(box[a] - stage[a]) / stage["width"] for a in ("x", "y")] + [
        box[a] / stage["width"] for a in ("width", "height")
    ]
    assert place == pytest.approx([0.25, 0.5, 0.1, 0.2], abs=0.005)
    expect(page.locator("#warnings")).to_contain_text("Too small: 32x32 pixels")
    assert page.locator("#warnings").bounding_box()["y"] < page.locator("#findings").bounding_box()["y"]
    page.get_by_role("checkbox", name="Known boxes (1)").press("Space")
    expect(page.locator(".box")).to_be_hidden()


def test_an_image_unlike_the_training_data_gets_a_warning_and_no_probabilities(page):
    drop(page, STRANGE)
    expect(page.locator("#warnings")).to_contain_text("Unlike the training data")
    assert rows(page) == [] and "%" not in page.locator(".answer").inner_text()
    expect(page.locator("#heat")).to_be_hidden()
    expect(page.locator("#said")).to_contain_text("unlike the training data")


def test_a_bad_file_gets_a_reason_and_a_lost_network_a_next_step(page):
    expect(page.locator(".welcome")).to_contain_text(KINDS)
    drop(page, b"Dear Dr Doe")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text(f"No {KINDS}")
    expect(problem).to_contain_text("Send a whole PNG")
    drop(page, toy.png(FILM)[:200])
    expect(problem).to_contain_text("Truncated PNG")
    page.context.set_offline(True)
    drop(page, FILM)
    expect(problem).to_contain_text("The service cannot be reached", timeout=15_000)
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("region", name="Findings")).to_be_focused()
    expect(page.locator("#findings label")).to_have_count(3)


def test_a_list_of_images_is_read_and_only_the_last_keep_their_pictures(page):
    drop(page, *[FILM, BRIGHTER, STRANGE, b"no image"] * 3)
    states = page.locator("#films .state")
    expect(states.nth(10)).to_have_text("unlike the training data")
    assert states.all_inner_texts()[1::4][0].startswith("Bright ")
    assert all("no PNG" in text for text in states.all_inner_texts()[3::4])
    first = page.locator("#films input").first
    first.focus()
    for place in range(1, 12):
        page.keyboard.press("ArrowDown")
        expect(page.locator("#films input").nth(place)).to_be_checked()
        expect(page.locator("body")).to_have_attribute("data-state", "failed" if place % 4 == 3 else "answered")
    kept = "import('/page/films.js').then(module => module.films.filter(film => film.answer).length)"
    assert page.evaluate(kept) == 8
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("Drop a chest radiograph anywhere")).to_be_visible()


def test_the_focus_is_not_lost_when_the_list_that_held_it_disappears(page):
    drop(page, FILM, BRIGHTER, STRANGE)
    remove = page.get_by_role("button", name="Remove", exact=True)
    remove.press("Enter")
    expect(remove).to_be_focused()  # so that the next image can be removed too
    remove.press("Enter")
    expect(page.get_by_role("region", name="Findings")).to_be_focused()


@pytest.mark.parametrize("viewport", [PHONE, MAGNIFIED], ids=["phone", "magnified"])
def test_nothing_is_wider_than_a_small_screen(page, viewport):
    page.set_viewport_size(viewport)
    expect(page.get_by_text("version 1")).to_be_visible()
    assert fits(page)
    drop(page, KNOWN, FILM, b"no image", name=f"{'a long name ' * 20}{'x' * 200}")
    expect(page.locator("#films .state").nth(2)).to_contain_text("no PNG")
    expect(page.locator("#findings label")).to_have_count(3)
    assert fits(page)
    page.get_by_role("button", name="Model card").click()
    expect(page.get_by_role("row", name="sex F")).to_be_visible()
    dialog = page.locator("#card")
    assert dialog.evaluate("card => card.scrollWidth <= card.clientWidth")
    assert fits(page)


def test_the_page_follows_the_wishes_of_the_system(open_page, service):
    light = open_page(service, color_scheme="light")
    dark = open_page(service, color_scheme="dark", reduced_motion="reduce")
    ground = "getComputedStyle(document.body).backgroundColor"
    motion = "getComputedStyle(document.querySelector('.spinner')).animationName"
    assert light.evaluate(ground) != dark.evaluate(ground)
    assert (light.evaluate(motion), dark.evaluate(motion)) == ("turn", "none")


def test_a_key_is_asked_for_and_a_missing_model_or_registry_is_named(open_page, new_store, tmp_path):
    workspace = Workspace.at(str(tmp_path / "empty"))
    new_store(workspace)
    with toy.running(workspace, "--serving.reload_s=0.3", key=KEY) as service:
        page = open_page(service)
        dialog = page.get_by_role("dialog", name="The service needs an API key")
        expect(dialog).to_be_visible()
        expect(dialog.get_by_role("alert")).to_have_count(0)
        give_key(page, "wrong" * 4)
        expect(dialog.get_by_role("alert")).to_have_text("The service refuses this key.")
        give_key(page, KEY)
        expect(dialog).to_be_hidden()
        expect(page.locator("#notice")).to_contain_text("There is no model yet")
        expect(page.locator("#notice")).to_contain_text("python inference/register.py")
        toy.register(workspace)
        while service.client.get("/readyz").status_code != 200:
            page.wait_for_timeout(100)
        drop(page, FILM)
        expect(page.locator("#findings label")).to_have_count(3)
        expect(page.get_by_text("chexscale · version 1 · INT8")).to_be_visible()
        expect(page.locator("#notice")).to_be_hidden()
        workspace.tracking_db.rename(tmp_path / "gone.db")
        while service.client.get("/v1/model").json()["registry"]["reachable"]:
            page.wait_for_timeout(100)
        page.reload()
        expect(page.locator("#notice")).to_contain_text("The registry cannot be reached since")
        expect(page.locator("#notice")).to_contain_text("Version 1 is still in use")
        assert page.evaluate("Object.values({...sessionStorage})") == [KEY]
        assert page.evaluate("localStorage.length") == 0 and page.context.cookies() == []
