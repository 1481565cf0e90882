"""The page of a model that may answer unsure, and the same answers of the service."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from conf.workspace import Workspace
from conf.writing import write_json
from tests.inference.service import toy
from tests.inference.service.page import FILM, drop, model_card, rows

BETWEEN = toy.film(133)
SHARE = {"value": 0.05, "low": 0.02, "high": 0.11}
FACTS = {"present_answered_absent": SHARE, "absent_answered_present": SHARE, "unsure": SHARE}


@pytest.fixture(scope="module")
def service(new_store, tmp_path_factory) -> Iterator[toy.Running]:
    workspace = Workspace.at(str(tmp_path_factory.mktemp("unsure")))
    new_store(workspace)
    _, folder = toy.register(workspace, toy.UNSURE)
    findings = {
        name: {"absent_below": low, "present_above": high, **FACTS}
        for name, low, high in zip(
            toy.UNSURE.findings, toy.UNSURE.unsure["absent_below"], toy.UNSURE.unsure["present_above"], strict=True
        )
    }
    write_json(folder / "model_card.json", model_card() | {"unsure": {"error_rate": 0.1, "findings": findings}})
    with toy.running(workspace, "--serving.requests_per_minute=0") as running:
        yield running


def test_the_service_gives_the_answer_its_bounds_and_the_error_rate(service):
    (result,) = service.predict(toy.png(FILM)).json()["results"]
    assert result["error_rate"] == 0.1
    assert [finding["answer"] for finding in result["findings"]] == ["present", "absent", "unsure"]
    bounds = [(finding["absent_below"], finding["present_above"]) for finding in result["findings"]]
    assert bounds == [(0.3, 0.7), (0.35, 0.6), (None, None)]
    (strange,) = service.predict(toy.png(toy.film(250))).json()["results"]
    assert [finding["answer"] for finding in strange["findings"]] == [None] * 3
    unsure = service.client.get("/v1/model").json()["unsure"]
    assert unsure == {
        "error_rate": 0.1,
        "absent_below": {"Bright": 0.3, "Dark": 0.35, "Never": None},
        "present_above": {"Bright": 0.7, "Dark": 0.6, "Never": None},
    }


def test_the_page_shows_three_answers_by_words_and_marks(open_page, service):
    page: Page = open_page(service)
    expect(page.get_by_text("Unsure is an answer.")).to_be_visible()
    drop(page, FILM)
    expect(page.get_by_role("group", name="1 finding present, 1 unsure")).to_be_visible()
    assert page.locator("#findings .group").all_inner_texts() == ["PRESENT", "UNSURE", "ABSENT"]
    assert page.locator("#findings .answer-word").all_inner_texts() == ["present", "unsure", "absent"]
    bright, never, dark = rows(page)
    assert "unsure from 30.0% to 70.0%, threshold 50.0%" in bright and "called" not in bright
    assert "unsure always, no threshold" in never and "unsure from 35.0% to 60.0%" in dark
    expect(page.locator("#findings")).to_contain_text("Error rate 10.0%: at most this share")
    part, bar = (page.locator(f"#findings label >> nth=0 >> .{name}").bounding_box() for name in ("unsure-part", "bar"))
    assert (part["x"] - bar["x"]) / bar["width"] == pytest.approx(0.3, abs=0.02)
    assert part["width"] / bar["width"] == pytest.approx(0.4, abs=0.02)
    expect(page.locator("#said")).to_contain_text("Present: Bright 7")
    expect(page.locator("#said")).to_contain_text("unsure: Never 50.0%")
    drop(page, BETWEEN)
    expect(page.get_by_role("group", name="No finding present, 3 unsure")).to_be_visible()
    page.get_by_role("button", name="Model card").click()
    card = page.get_by_role("dialog")
    expect(card.get_by_text("Answers at an error rate of 10.0%, test split")).to_be_visible()
    expect(card.get_by_role("row", name="Bright 30.0% 70.0% 5.0% (2.0% to 11.0%)")).to_be_visible()
    expect(card.get_by_role("row", name="Never never never never never 5.0% (2.0% to 11.0%)")).to_be_visible()


@pytest.mark.parametrize("look", [{}, {"color_scheme": "dark"}, {"forced_colors": "active"}])
def test_no_answer_needs_a_colour_or_a_wide_screen(open_page, service, look):
    page: Page = open_page(service, **look)
    page.set_viewport_size({"width": 360, "height": 740})
    drop(page, FILM)
    expect(page.locator("#findings .answer-word")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    styles = [
        page.locator(f".answer-word.{word}").evaluate("word => getComputedStyle(word).borderStyle")
        for word in ("present", "unsure")
    ]
    assert styles == ["solid", "dashed"]
