"""A champion that takes age, sex and view: what requests give, what files state, and the fields of the page."""

import json
from collections.abc import Iterator
from math import exp

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from conf.workspace import Workspace
from tests.etl.dicom_files import build, written
from tests.inference.service import toy
from tests.inference.service.page import BRIGHTER, FILM, drop

TAGGED = written(build(FILM, PatientAge="064Y", PatientSex="F", ViewPosition="PA", WindowCenter=128, WindowWidth=256))
PICTURE = toy.png(FILM)


@pytest.fixture(scope="module")
def workspace(new_store, tmp_path_factory) -> Workspace:
    workspace = Workspace.at(str(tmp_path_factory.mktemp("registry")))
    new_store(workspace)
    toy.register(workspace, toy.TABULAR)
    return workspace


@pytest.fixture(scope="module")
def service(workspace) -> Iterator[toy.Running]:
    with toy.running(workspace, "--serving.requests_per_minute=0", "--serving.reload_s=0.5") as running:
        yield running


def explain(service: toy.Running, content: bytes, **params: str):
    return service.client.post("/v1/explain", files={"file": ("film", content)}, params=params)


def logit(answer: dict) -> float:
    (never,) = [finding["probability"] for finding in answer["findings"] if finding["name"] == "Never"]
    return -np.log(1 / never - 1)


def test_the_model_gets_what_is_given_else_what_the_tags_state_else_unknown(service):
    def ask(content: bytes, **params: str) -> dict:
        (result,) = service.predict(content, params=params).json()["results"]
        # The toy's finding Never depends on nothing but the age; unknown is -1.
        age = result["attributes"]["age_years"]
        assert logit(result) == pytest.approx(toy.AGE_WEIGHT * (-1 if age is None else age), abs=1e-4)
        return result

    assert ask(PICTURE)["attributes"] == {"age_years": None, "sex": None, "view": None, "given": []}
    tagged = ask(TAGGED)
    assert tagged["attributes"] == {"age_years": 64.0, "sex": "F", "view": "PA", "given": []}
    assert tagged["warnings"] == []
    given = ask(TAGGED, age="18M", view="unknown")
    assert given["attributes"] == {"age_years": 1.5, "sex": "F", "view": None, "given": ["age_years", "view"]}
    assert given["warnings"] == ["age 1.5 years is outside the ages of the training split, 20 to 80 years"]
    assert "age unknown, but known for every film of the training split" in ask(PICTURE)["warnings"]
    assert explain(service, TAGGED, sex="male").json()["attributes"]["sex"] == "M"


def test_a_picture_names_the_values_in_a_header(service):
    answer = service.client.post(
        "/v1/explain",
        files={"file": TAGGED},
        params={"finding": "Bright", "age": "95"},
        headers={"Accept": "image/png"},
    )
    assert answer.headers["content-type"] == "image/png"
    assert json.loads(answer.headers["x-attributes"]) == {
        **{"age_years": 95.0, "sex": "F", "view": "PA", "given": ["age_years"]},
        "doubts": ["age 95 years is outside the ages of the training split, 20 to 80 years"],
    }


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"age": "-1"}, "age is '-1', expected years from 0 to 120 such as 64, a number"),
        ({"age": "400"}, "age is '400', expected years from 0 to 120"),
        ({"sex": "x" * 300}, f"sex is '{'x' * 50}', expected F, M or unknown"),
        ({"view": "sideways"}, "view is 'sideways', expected PA, AP, LATERAL or unknown"),
    ],
)
def test_a_value_that_is_not_understood_is_refused(service, params, error):
    for answer in (service.predict(PICTURE, params=params), explain(service, PICTURE, **params)):
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(error)
        assert answer.json()["next"] == "correct it, or leave it out to take what the file's DICOM tags state"


def test_the_service_says_what_it_takes(service):
    taken = service.client.get("/v1/model").json()["attributes"]
    assert taken == toy.TABULAR.attributes
    described = service.client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["parameters"]
    assert {one["name"] for one in described} == {"operating_point", "age", "sex", "view"}
    assert all("only for a model that takes it" in one["description"] for one in described[1:])


def test_the_page_reads_a_film_again_with_what_a_person_gives(open_page, service):
    page = open_page(service)
    expect(page.get_by_text("chexscale · version 1")).to_be_visible()
    drop(page, TAGGED)
    used = page.locator("#used")
    expect(used).to_have_text("Read with age 64 years (from the file), sex F (from the file), view PA (from the file).")
    expect(page.get_by_text("The training had ages of 20 to 80 years.")).to_be_visible()
    before = never(page)

    page.get_by_role("textbox", name="Age").fill("95")
    page.get_by_role("textbox", name="Age").press("Enter")
    expect(used).to_contain_text("age 95 years (given), sex F (from the file)")
    expect(page.locator("#warnings")).to_contain_text("Age 95 years is outside the ages of the training split")
    assert never(page) > before
    page.get_by_role("combobox", name="Sex").select_option("unknown")
    expect(used).to_contain_text("sex unknown (given)")

    page.get_by_role("textbox", name="Age").fill("old")
    page.get_by_role("textbox", name="Age").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Age is 'old', expected years from 0 to 120")
    page.get_by_role("textbox", name="Age").fill("")
    page.get_by_role("textbox", name="Age").press("Enter")
    expect(used).to_contain_text("age 64 years (from the file), sex unknown (given)")

    # Each film keeps its own.
    drop(page, BRIGHTER)
    expect(used).to_have_text("Read with age unknown, sex unknown, view unknown.")
    assert page.get_by_role("combobox", name="Sex").input_value() == ""
    page.locator("#films label").first.click()
    expect(used).to_contain_text("sex unknown (given)")


def never(page: Page) -> float:
    return float(page.locator("#findings label", has_text="Never").locator(".value").inner_text().rstrip("%"))


def test_without_such_a_model_there_are_no_fields_and_values_are_refused(open_page, service, workspace):
    """Last in this file, because the champion moves."""
    page = open_page(service)
    drop(page, PICTURE)
    page.get_by_role("textbox", name="Age").fill("70")
    page.get_by_role("textbox", name="Age").press("Enter")
    expect(page.locator("#used")).to_contain_text("age 70 years (given)")
    toy.register(workspace, toy.COLOUR)
    expect(page.get_by_text("chexscale · version 2")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("textbox", name="Age")).to_be_hidden()
    expect(page.get_by_role("group", name="finding called")).to_be_visible()
    answer = service.predict(PICTURE, params={"age": "64", "sex": "F"})
    assert (answer.status_code, answer.json()) == (
        422,
        {
            "error": "age and sex given, but the model takes pixels alone",
            "next": "leave them out, or ask a model that was trained with training.tabular",
        },
    )


def test_a_colour_champion_sees_and_shows_colour(service):
    """After the test above, which registered it."""
    red = np.stack([np.full_like(FILM, 30), FILM // 2, FILM], axis=-1)
    answer = explain(service, toy.png(red)).json()
    assert answer["attributes"] is None
    shades = red.astype(np.float64).mean()
    (bright,) = [finding["probability"] for finding in answer["findings"] if finding["name"] == "Bright"]
    assert bright == pytest.approx(1 / (1 + exp(-(shades - 128) * toy.WEIGHTS[0])), abs=0.01)
