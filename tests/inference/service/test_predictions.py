"""The service, a real process asked over HTTP, gives the same answers as direct calls of the model."""

import base64
import json
import math
import re

import cv2
import numpy as np
import pytest
from pydicom import uid

from etl.contract.images.kinds import KINDS
from etl.contract.images.pixels import to_square
from inference.service.door.parameters import prefers_picture
from tests.etl.dicom_files import build, written
from tests.inference.service import toy

FILM = toy.film(150)
NOTE = "Research use only, not for clinical use."


@pytest.fixture(scope="module")
def service(registry):
    with toy.running(registry, "--serving.max_files=4") as running:
        yield running


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def seen(image: np.ndarray) -> float:
    """How far the mean of the square that the model sees lies above grey 128."""
    return float(to_square(image, toy.SIZE_PX).mean()) - 128


def decoded(address: str) -> np.ndarray:
    kind, _, content = address.partition(",")
    assert kind == "data:image/png;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)


def test_findings_are_those_of_the_model_with_its_thresholds(service):
    answer = service.predict(toy.png(FILM)).json()
    assert answer["model"] == {"name": "chexscale", "version": 1, "mode": "int8"} and answer["note"] == NOTE
    (result,) = answer["results"]
    bright, dark, never = result.pop("findings")
    assert bright == {
        "name": "Bright",
        "probability": pytest.approx(sigmoid(0.05 * seen(FILM)), abs=1e-5),
        "threshold": 0.5,
        "present": True,
    }
    assert dark["probability"] == pytest.approx(1 - bright["probability"], abs=1e-5) and dark["present"] is False
    assert (never["threshold"], never["present"]) == (None, None)
    assert result == {
        "index": 0,
        "name": "0.png",
        "familiar": True,
        "distance": pytest.approx(seen(FILM), abs=1e-3),
        "distance_threshold": 100,
        "fault": None,
        "attributes": None,
        "warnings": [],
        "width_px": 128,
        "height_px": 128,
        "crop": None,
    }


def test_another_operating_point_has_other_thresholds(service):
    answer = service.predict(toy.png(FILM), params={"operating_point": "sensitivity_95"}).json()
    assert [finding["present"] for finding in answer["results"][0]["findings"]] == [True, True, None]
    unknown = service.predict(toy.png(FILM), params={"operating_point": "guess"})
    assert unknown.status_code == 422 and unknown.json()["next"] == "choose one of youden, sensitivity_95"


def test_answers_say_of_which_operating_point_their_thresholds_are(service):
    for point in ("youden", "sensitivity_95"):
        answer = service.predict(toy.png(FILM), params={"operating_point": point}).json()
        shown = service.client.post(
            "/v1/explain", files={"file": toy.png(FILM)}, params={"operating_point": point}
        ).json()
        bad = service.predict(b"no image", params={"operating_point": point}).json()
        assert answer["operating_point"] == shown["operating_point"] == bad["operating_point"] == point
    assert service.predict(toy.png(FILM)).json()["operating_point"] == "youden"


def test_a_dicom_and_a_jpeg_are_read_by_their_content_whatever_they_are_called(service):
    dicom = written(build(FILM, syntax=uid.ExplicitVRLittleEndian, WindowCenter=128, WindowWidth=256))
    compressed = build(FILM.astype(np.uint16) * 16, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    compressed.compress(uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
    jpeg = cv2.imencode(".jpg", FILM, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    results = service.predict(toy.png(FILM), dicom, written(compressed), jpeg).json()["results"]
    distances = [result["distance"] for result in results]
    assert distances[1:] == pytest.approx([distances[0]] * 3, abs=1)
    assert [result["name"] for result in results] == ["0.png", "1.png", "2.png", "3.png"]


def test_a_body_that_is_one_file_needs_no_form(service):
    for kind in ("image/png", "application/octet-stream", "application/dicom"):
        response = service.client.post("/v1/predict", content=toy.png(FILM), headers={"Content-Type": kind})
        (result,) = response.json()["results"]
        assert result["name"] == "" and result["familiar"]


def test_films_of_many_requests_are_not_mixed_up(service):
    greys = list(range(60, 200, 10))
    films = [toy.film(grey) for grey in greys]
    for start in range(0, len(films), 4):
        batch = films[start : start + 4]
        results = service.predict(*map(toy.png, batch)).json()["results"]
        assert [result["distance"] for result in results] == pytest.approx([abs(seen(one)) for one in batch], abs=1e-3)


def test_one_bad_file_has_its_reason_in_its_place(service):
    response = service.predict(toy.png(FILM), b"Dear Dr. Smith")
    good, bad = response.json()["results"]
    assert response.status_code == 200 and good["familiar"]
    assert bad == {
        "index": 1,
        "name": "1.png",
        "error": f"no {KINDS}: starts with b'Dear Dr.'",
    }


def test_only_bad_files_are_a_bad_request(service):
    no_images = service.predict(b"Dear Dr. Smith", b"")
    assert no_images.status_code == 415 and len(no_images.json()["results"]) == 2
    damaged = service.predict(b"Dear Dr. Smith", toy.png(FILM)[:-20])
    assert damaged.status_code == 422
    assert damaged.json()["error"] == "none of the 2 files is a usable image"
    assert damaged.json()["results"][1]["error"].startswith("truncated PNG")


def test_an_image_unlike_the_training_data_has_no_findings_and_no_maps(service):
    black = toy.png(np.zeros((128, 128), np.uint8))
    (result,) = service.predict(black).json()["results"]
    assert not result["familiar"]
    assert {finding["probability"] for finding in result["findings"]} == {None}
    assert result["warnings"][0].startswith("unlike the training data (distance 128.0, threshold 100.0)")
    explained = service.client.post("/v1/explain", files={"file": black}).json()
    assert explained["maps"] == {} and decoded(explained["image"]).max() == 0
    picture = service.client.post("/v1/explain?finding=Bright", files={"file": black}, headers={"Accept": "image/png"})
    assert picture.status_code == 422 and "unlike the training data" in picture.json()["error"]


def test_an_explanation_shows_what_the_model_saw_where(service):
    half = np.full((32, 32), 100, np.uint8)
    half[:, 16:] = 220
    answer = service.client.post("/v1/explain", files={"file": ("half.png", toy.png(half))}).json()
    assert answer["name"] == "half.png" and answer["model"]["version"] == 1 and answer["note"] == NOTE
    assert np.array_equal(decoded(answer["image"]), half)
    assert list(answer["maps"]) == ["Bright", "Dark", "Never"]
    assert answer["exact_maps"] is True
    bright = answer["maps"]["Bright"]
    # Thresholds at 0.5, where the log odds are 0.
    assert bright["low"] == pytest.approx(0.05 * (100 - 128), abs=1e-4)
    assert bright["high"] == pytest.approx(0.05 * (220 - 128), abs=1e-4)
    alpha = decoded(bright["png"])[..., 3]
    assert alpha.shape == (32, 32) and alpha[:, 24:].min() > 200 and alpha[:, :8].max() == 0
    assert answer["boxes"] == []


def test_known_boxes_come_with_their_film(service):
    known = toy.png(toy.film(140, toy.SIZE_PX))
    boxes = service.client.post("/v1/explain", files={"file": known}).json()["boxes"]
    assert boxes == [{"finding": "Bright", "left": 0.25, "top": 0.5, "width": 0.1, "height": 0.2}]


def test_an_explanation_of_one_finding_can_be_a_picture(service):
    request = {"files": {"file": toy.png(FILM)}, "params": {"finding": "Bright"}}
    picture = service.client.post("/v1/explain", **request, headers={"Accept": "image/png"})
    assert picture.headers["content-type"] == "image/png"
    image = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == (32, 32, 3)
    # The picture has colour where there is evidence.
    assert np.ptp(image.astype(int), axis=2).max() > 30
    assert list(service.client.post("/v1/explain", **request).json()["maps"]) == ["Bright"]
    unknown = service.client.post("/v1/explain", files={"file": toy.png(FILM)}, params={"finding": "Rickets"})
    assert unknown.status_code == 404 and unknown.json()["next"] == "choose one of Bright, Dark, Never"


def test_the_model_says_what_it_is(service):
    model = service.client.get("/v1/model").json()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", model.pop("loaded_at"))
    assert model == {
        "name": "chexscale",
        "version": 1,
        "package": None,
        "mode": "int8",
        "note": NOTE,
        "findings": ["Bright", "Dark", "Never"],
        "size_px": 32,
        "square": "pad",
        "crop": "none",
        "channels": 1,
        "attributes": None,
        "thresholds": {
            "youden": {"Bright": 0.5, "Dark": 0.4, "Never": None},
            "sensitivity_95": {"Bright": 0.1, "Dark": 0.1, "Never": None},
        },
        "unsure": None,
        "default_operating_point": "youden",
        "registry": {"reachable": True, "since": None, "reason": None},
        "limits": {"files": 4, "file_mb": 50, "request_mb": 200},
        "card": {"intended_use": "tests"},
    }


def test_metrics_count_requests_files_and_batches(service):
    before = service.metric('chexscale_files_total{outcome="answered"}')
    service.predict(*[toy.png(FILM)] * 3)
    assert service.metric('chexscale_files_total{outcome="answered"}') == before + 3
    assert service.metric("chexscale_batch_size_sum") >= before + 3
    assert service.metric('chexscale_requests_total{route="/v1/predict",status="200"}') >= 1
    assert service.metric('chexscale_model_info{mode="int8",name="chexscale",version="1"}') == 1
    assert service.metric("chexscale_registry_reachable") == 1


def test_the_description_has_an_example_for_every_answer(service):
    spec = service.client.get("/openapi.json").json()
    assert set(spec["paths"]) == {"/v1/predict", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/metrics"}
    for schema in ("Prediction", "Explanation", "ModelDescription", "Problem"):
        assert spec["components"]["schemas"][schema]["examples"], schema
    for path in ("/v1/predict", "/v1/explain"):
        asked = spec["paths"][path]["post"]
        assert all("example" in content for content in asked["requestBody"]["content"].values()), path
        assert all("examples" in parameter["schema"] for parameter in asked["parameters"]), path
    assert "securitySchemes" not in spec["components"]
    assert service.client.get("/docs").status_code == 404
    (example,) = spec["components"]["schemas"]["AllUnreadable"]["examples"]
    said = service.client.post("/v1/predict", files={"files": ("notes.txt", b"Dear Dr Smith")}).json()
    assert example == {**said, "model": example["model"]}


def test_every_answer_has_the_security_headers(service):
    answers = [
        service.client.get("/healthz"),
        service.client.get("/nothing"),
        service.client.delete("/v1/predict"),
        service.predict(b"no image"),
        service.client.get("/openapi.json", headers={"Host": "elsewhere"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 405, 415, 421]
    for answer in answers:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
    for answer in answers[1:]:
        assert {"error", "next"} <= set(answer.json())


def test_the_log_has_no_names_of_files_and_no_queries(service):
    files = [("files", ("SMITH^JOHN.png", toy.png(FILM))), ("files", ("SMITH^JANE.png", b"no image"))]
    service.client.post("/v1/predict?operating_point=youden", files=files)
    service.client.post("/v1/predict?patient=SMITH", files=files)
    service.client.get("/SMITH")
    id_ = service.client.get("/healthz").headers["x-request-id"]
    log = service.log(until=id_)
    assert "GET /healthz 200" in log
    assert "SMITH" not in log and "patient" not in log


def test_names_of_files_come_back_as_they_were_sent(service):
    name = 'röntgen "a".png'
    response = service.client.post("/v1/predict", files=[("files", (name, toy.png(FILM)))])
    assert json.loads(response.content)["results"][0]["name"] in (name, name.replace('"', "%22"))


@pytest.mark.parametrize(
    ("accept", "picture"),
    [("image/png", True), ("IMAGE/PNG", True), ("image/*, */*;q=0.8", True), ("application/json, image/png", True)]
    + [("", False), ("*/*", False), ("image/png;q=0", False), ("image/png;q=x", False), ("text/html", False)]
    + [("application/json, image/png;q=0.5", False), ("image/png;q=1.0, application/json;q=0.9", True)],
)
def test_a_picture_is_sent_to_those_who_rather_have_it(accept, picture):
    assert prefers_picture(accept) == picture


@pytest.mark.parametrize("parameter", ["operating_point", "finding"])
def test_a_long_unknown_name_is_answered_with_the_known_ones(service, parameter):
    answer = service.client.post(f"/v1/explain?{parameter}={'x' * 300}", files={"file": toy.png(FILM)})
    assert answer.status_code in (404, 422) and "choose one of" in answer.json()["next"]
