"""What a request says is followed, or refused with what was expected: its method, parameters and fields."""

import asyncio
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from inference.service.door.parameters import only_known_parameters
from inference.service.door.refusals import Refusal
from tests.inference.service import toy

FILM = toy.png(toy.film(150))
POSTED = ("/v1/predict", "/v1/explain")
STATIC = ("/", "/openapi.json", "/page/app.js")
GETTABLE = ("/healthz", "/readyz", "/metrics", "/v1/model", *STATIC)
JSON, PNG = "application/json", "image/png"
POINTS = ("youden", "sensitivity_95")


@pytest.fixture(scope="module")
def service(page_service) -> toy.Running:
    return page_service


def explain(service: toy.Running, query: str = "", accept: str = "*/*"):
    return service.client.post(f"/v1/explain?{query}", files={"file": FILM}, headers={"Accept": accept})


@pytest.mark.parametrize(
    ("route", "query", "error", "step"),
    [
        (
            "/v1/predict",
            "operating_points=sensitivity_95",
            "unknown parameter 'operating_points'; did you mean operating_point?",
            "choose one of operating_point, age, sex, view",
        ),
        (
            "/v1/explain",
            "FINDING=Bright",
            "unknown parameter 'FINDING'; did you mean finding?",
            "choose one of operating_point, finding, age, sex, view",
        ),
        (
            "/v1/predict",
            "x=1&operating_point=youden",
            "unknown parameter 'x'",
            "choose one of operating_point, age, sex, view",
        ),
        (
            "/v1/predict",
            "operating_point=youden&operating_point=sensitivity_95",
            "parameter 'operating_point' is given 2 times",
            "give it once",
        ),
        ("/v1/model", "card=1", "unknown parameter 'card'", "leave it out: this address takes none"),
        ("/metrics", "a", "unknown parameter 'a'", "leave it out: this address takes none"),
        ("/readyz", "a=", "unknown parameter 'a'", "leave it out: this address takes none"),
        ("/healthz", "b" * 1000, f"unknown parameter '{'b' * 50}'", "leave it out: this address takes none"),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_known_ones(service, route, query, error, step):
    answer = service.client.request("POST" if route in POSTED else "GET", f"{route}?{query}")
    assert (answer.status_code, answer.json()) == (422, {"error": error, "next": step})


def test_a_query_of_a_file_does_no_harm(service):
    assert [service.client.get(f"{path}?v=2").status_code for path in STATIC] == [200] * 3


@given(names=st.lists(st.sampled_from(["a", "b", "A", "a ", ""]), max_size=4))
def test_exactly_known_parameters_given_once_pass(names):
    known = [SimpleNamespace(alias=name) for name in ("a", "b")]
    route = SimpleNamespace(dependant=SimpleNamespace(query_params=known))
    query = urlencode([(name, "") for name in names]).encode()
    request = Request({"type": "http", "query_string": query, "route": route})
    if set(names) <= {"a", "b"} and len(set(names)) == len(names):
        asyncio.run(only_known_parameters(request))
    else:
        with pytest.raises(Refusal) as refused:
            asyncio.run(only_known_parameters(request))
        assert refused.value.status == 422


@pytest.mark.parametrize(
    ("route", "field", "step"),
    [
        ("/v1/predict", "file", "send files in the field 'files'"),
        ("/v1/explain", "files", "send one file in the field 'file'"),
        (
            "/v1/predict",
            "operating_point",
            "send files in the field 'files', and operating_point in the address: ?operating_point=VALUE",
        ),
        (
            "/v1/explain",
            "finding",
            "send one file in the field 'file', and finding in the address: ?finding=VALUE",
        ),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_an_unknown_field_is_refused_with_the_known_one(service, route, field, step, is_first):
    good, bad = ("file" if route == "/v1/explain" else "files", FILM), (field, b"youden")
    answer = service.client.post(route, files=[bad, good] if is_first else [good, bad])
    assert (answer.status_code, answer.json()) == (422, {"error": f"unknown field {field!r}", "next": step})


def test_several_films_are_not_explained(service):
    answer = service.client.post("/v1/explain", files=[("file", FILM), ("file", FILM)])
    step = "send the files in several requests"
    assert (answer.status_code, answer.json()) == (413, {"error": "the request has more than 1 file", "next": step})


@pytest.mark.parametrize("value", ["Youden", "youden ", " youden", "YOUDEN", "youdn", ""])
def test_an_operating_point_is_named_exactly(service, value):
    hint = "; did you mean youden?" if value else ""
    for route, field in zip(POSTED, ("files", "file"), strict=True):
        answer = service.client.post(route, files={field: FILM}, params={"operating_point": value})
        assert answer.status_code == 422
        assert answer.json() == {
            "error": f"unknown operating point {value!r}{hint}",
            "next": "choose one of youden, sensitivity_95",
        }


@pytest.mark.parametrize("value", ["bright", "Bright ", ""])
def test_a_finding_is_named_exactly(service, value):
    answer = explain(service, urlencode({"finding": value}))
    hint = "; did you mean Bright?" if value else ""
    assert answer.status_code == 404
    assert answer.json() == {
        "error": f"unknown finding {value!r}{hint}",
        "next": "choose one of Bright, Dark, Never",
    }


def test_a_picture_names_its_operating_point(service):
    pictures = [explain(service, f"finding=Bright&operating_point={point}", PNG) for point in POINTS]
    assert [picture.headers["content-type"] for picture in pictures] == [PNG, PNG]
    assert [picture.headers["x-operating-point"] for picture in pictures] == list(POINTS)
    assert pictures[0].content != pictures[1].content


@pytest.mark.parametrize("route", GETTABLE)
def test_head_is_answered_wherever_get_is(service, route):
    get, head = service.client.get(route), service.client.head(route)
    assert (head.status_code, head.content) == (200, b"")
    one_time = {"date", "x-request-id"} | ({"content-length"} if route == "/metrics" else set())
    headers = [{name: value for name, value in one.headers.items() if name not in one_time} for one in (get, head)]
    assert headers[0] == headers[1]
    assert service.client.head("/nothing").status_code == 404
    assert service.client.head(f"{route}?a=1").status_code == service.client.get(f"{route}?a=1").status_code


def test_a_wrong_method_is_refused_with_the_right_ones(service):
    for method, route, allowed in (("POST", "/v1/model", "GET, HEAD"), ("DELETE", "/v1/predict", "POST")):
        answer = service.client.request(method, route, files={"files": FILM} if method == "POST" else None)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        step = f"use {allowed}; see /openapi.json for all routes and parameters"
        assert answer.json() == {"error": f"{method} is not a method of this address", "next": step}
    assert service.client.head("/v1/predict").headers["allow"] == "POST"


def test_the_description_names_each_route_once_and_every_refusal(service):
    spec = service.client.get("/openapi.json").json()
    got = ("/v1/model", "/healthz", "/readyz", "/metrics")
    expected = {**{path: ["post"] for path in POSTED}, **{path: ["get"] for path in got}}
    assert {path: list(methods) for path, methods in spec["paths"].items()} == expected
    for path, methods in spec["paths"].items():
        (described,) = methods.values()
        assert "422" in described["responses"], path
    picture = spec["paths"]["/v1/explain"]["post"]["responses"]["200"]
    assert set(picture["content"]) == {JSON, PNG} and "X-Operating-Point" in picture["headers"]
