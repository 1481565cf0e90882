"""Whatever is sent, the service answers with a reason and keeps running: a real process with small limits."""

import io
import json
import os
import random
import signal
import socket
import struct
import time
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image
from pydicom import uid

from tests.etl.dicom_files import build, written
from tests.inference.service import toy
from tests.processes import children

FILM = toy.png(toy.film(150))
# Less than the memory bomb below needs, however it is decoded; as a file the bomb has a few kB.
DECODE_MB = 300


@pytest.fixture(scope="module")
def service(registry):
    limits = {"max_files": 3, "max_file_mb": 1, "max_request_mb": 2, "upload_s": 1, "decode_mb": DECODE_MB}
    with toy.running(registry, *(f"--serving.{key}={value}" for key, value in limits.items())) as running:
        yield running


@pytest.fixture(autouse=True)
def goes_on(service):
    """After each test, a good film still gets its answer, and no bug has been logged."""
    yield
    assert service.predict(FILM).status_code == 200
    assert service.places == []


def png_of(width: int, height: int, pixels: bytes, bits: int = 8, colour: int = 0) -> bytes:
    """A PNG whose header has these values, true or not; pixels: the uncompressed stream."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")
    )


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(50_000_000))
    return file.getvalue()


FRAMES = [Image.fromarray(toy.film(grey)) for grey in (100, 150)]
NO_PIXELS = build(toy.film(150))
del NO_PIXELS.PixelData
# Each row starts with its filter byte.
ROW = bytes(1 + 9_000 * 8)
with warnings.catch_warnings(action="ignore"):
    LONG_KIND = written(build(toy.film(150), PhotometricInterpretation="A" * 70_000))
BAD = {
    "text": (b"Dear Dr. Smith", 415, "no PNG"),
    "empty": (b"", 415, "empty file"),
    "GIF": (saved(FRAMES[0], "GIF"), 415, "no PNG"),
    "animated PNG": (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), 422, "several frames"),
    "zip bomb": (zip_bomb(), 415, "no PNG"),
    "pickle": (b"\x80\x04\x95", 415, "no PNG"),
    "truncated": (FILM[: len(FILM) // 2], 422, "truncated PNG"),
    "no pixels": (png_of(0, 0, b""), 422, "no pixels"),
    "20,000 pixels a side": (png_of(20_000, 20_000, b""), 422, "too large: 20000x20000"),
    "bomb: more memory than a decoder has": (png_of(9_000, 9_000, ROW * 9_000, 16, 6), 422, "not enough memory"),
    "truncated JPEG": (saved(FRAMES[0], "JPEG")[:500], 422, "damaged JPEG"),
    "DICOM without pixels": (written(NO_PIXELS), 422, "no pixels"),
    "DICOM of many frames": (written(build(toy.film(150), NumberOfFrames=2)), 422, "2 frames"),
    "DICOM of a kind of 70,000 letters": (LONG_KIND, 422, "AAA"),
    "truncated DICOM": (written(build(toy.film(150)))[:5_000], 422, "cannot be decoded"),
}


def test_pixels_beyond_those_that_a_file_says_it_has_are_never_inflated(service):
    bomb = png_of(10, 10, bytes(100_000_000), 16)
    assert service.client.post("/v1/predict", files={"files": bomb}).status_code == 200


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_file_gets_a_reason(service, name):
    content, status, reason = BAD[name]
    response = service.predict(content)
    assert (response.status_code, reason in response.json()["error"]) == (status, True), response.text
    assert response.json()["results"][0]["error"] == response.json()["error"]
    explained = service.client.post("/v1/explain", files={"file": content})
    assert (explained.status_code, explained.json()["error"]) == (status, response.json()["error"])


ODD = {
    "16 bits": cv2.imencode(".png", toy.film(150).astype(np.uint16) * 257)[1].tobytes(),
    "colour": cv2.imencode(".png", cv2.cvtColor(toy.film(150), cv2.COLOR_GRAY2BGR))[1].tobytes(),
    "1x1": toy.png(np.full((1, 1), 150, np.uint8)),
    "a PNG that is called otherwise": FILM,
    "TIFF": saved(FRAMES[1], "TIFF"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_read(service, name):
    response = service.client.post("/v1/predict", files={"files": ("notes.dcm", ODD[name], "text/plain")})
    (result,) = response.json()["results"]
    assert result["distance"] == pytest.approx(22, abs=1)
    assert (result["fault"] or "").startswith("too small: 1x1" if name == "1x1" else "")


def test_too_much_is_refused_before_it_is_read(service):
    many = service.predict(*[FILM] * 4)
    assert many.status_code == 413 and many.json()["error"] == "the request has more than 3 files"
    thousand = service.predict(*[b"x"] * 1000)
    assert thousand.status_code == 413
    large = service.predict(bytes(1_000_001))
    assert large.status_code == 413 and large.json()["error"] == "a file is larger than 1 MB"
    together = service.predict(*[bytes(900_000)] * 3)
    assert together.status_code == 413 and together.json()["error"] == "the request is larger than 2 MB"


def test_a_body_that_says_it_is_huge_is_refused_at_once(service):
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100000000000\r\n"
    )
    for expects in (b"", b"Expect: 100-continue\r\n"):
        started = time.monotonic()
        assert raw(service, head + expects + b"\r\n").startswith(b"HTTP/1.1 413")
        # The client may still be sending; for two seconds, that is read and thrown away.
        assert time.monotonic() - started < (1 if expects else 4)


def test_a_huge_body_without_a_length_is_cut_off(service):
    def forever():
        while True:
            yield bytes(100_000)

    response = service.client.post("/v1/predict", content=forever(), headers={"Content-Type": "image/png"})
    assert response.status_code == 413 and response.headers["connection"] == "close"


def raw(service: toy.Running, *parts: bytes, pause_s: float = 0) -> bytes:
    """Sends these bytes and returns all that is answered until the connection ends."""
    with closing(socket.create_connection(("127.0.0.1", service.port), timeout=15)) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause_s)
        return b"".join(iter(partial(connection.recv, 65_536), b""))


def test_a_slow_upload_is_ended(service):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    answer = raw(service, head, *[b"x"] * 6, pause_s=0.2)
    assert answer.startswith(b"HTTP/1.1 408") and b"longer than 1 s" in answer


def test_headers_that_never_end_are_ended(service):
    started = time.monotonic()
    assert raw(service, b"POST /v1/predict HTTP/1.1\r\n") == b""
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("reads", [False, True])
def test_only_a_client_that_reads_nothing_for_long_is_ended(service, reads):
    length = len(service.client.get("/openapi.json").content)
    # More answers than the kernel buffers for the client.
    number = 40_000_000 // length
    requests = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * number
    read = 0
    with (
        closing(socket.create_connection(("127.0.0.1", service.port), timeout=15)) as connection,
        ThreadPoolExecutor(1) as thread,
        suppress(ConnectionError),
    ):
        thread.submit(connection.sendall, requests)
        for _ in range(8):
            time.sleep(0.25)
            read += len(connection.recv(2_000_000)) if reads else 0
        while read < number * length and (some := connection.recv(2_000_000)):
            read += len(some)
    assert (read >= number * length) == reads


def test_an_upload_that_breaks_off_leaves_nothing_behind(service):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", service.port))) as connection:
        connection.sendall(head + b"half")
    service.log(until="POST /v1/predict 499")
    assert service.metric("chexscale_files_in_work") == 0
    assert service.metric('chexscale_requests_total{route="/v1/predict",status="499"}') >= 1


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=b", b"no boundary", 400),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx', 400),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422),
        ("multipart/form-data; boundary=b", b"", 400),
        (f"multipart/form-data; boundary={'b' * 1000}", b"", 400),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n--b--', 422),
        ("application/json", b"{}", 415),
        ("", b"x", 415),
    ],
)
def test_other_bodies_are_refused(service, kind, body, status):
    response = service.client.post("/v1/predict", content=body, headers={"Content-Type": kind})
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error", "next"}


def test_a_compressed_body_is_refused(service):
    plain = {"Content-Type": "image/png", "Content-Encoding": "Identity"}
    assert service.client.post("/v1/predict", content=FILM, headers=plain).status_code == 200
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    assert service.client.post("/v1/predict", content=FILM, headers=headers).status_code == 415


def test_only_its_own_pages_and_names_may_call_it(service):
    def status(**headers: str) -> int:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return service.client.post("/v1/predict", files={"files": FILM}, headers=named).status_code

    assert status(Host="evil.example") == 421
    assert status(Host=f"localhost:{service.port}") == 200
    assert status(Origin="https://evil.example") == 403
    assert status(Origin="null") == 403
    assert status(Origin=service.address) == 200
    assert status(Sec_Fetch_Site="cross-site") == 403
    assert status(Sec_Fetch_Site="same-origin") == 200
    # Browsers send this header also when another site merely links to the page.
    assert service.client.get("/healthz", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_probes_are_answered_under_the_address_of_a_pod(service):
    def status(path: str, **headers: str) -> int:
        return service.client.get(path, headers={"Host": "10.1.2.3:8000", **headers}).status_code

    assert [status(path) for path in ("/healthz", "/readyz")] == [200, 200]
    assert [status(path) for path in ("/", "/openapi.json", "/metrics", "/v1/model", "/healthz/")] == [421] * 5
    assert status("/healthz", Origin="https://evil.example") == 403


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/page/../serve.py", "/page/%2e%2e/app.py", "/v2/predict", "//", "/v1/model/"]
)
def test_unknown_routes_are_not_found(service, path):
    answer = raw(service, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404") and b'"next"' in answer


def test_bytes_that_are_not_http_get_an_error(service):
    answer = raw(service, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and json.loads(answer.partition(b"\r\n\r\n")[2])["next"]


def test_a_request_that_breaks_after_its_answer_gets_no_second_one(service):
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/css\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = raw(service, head, b"no chunk\r\n", pause_s=0.3)
    assert answer.startswith(b"HTTP/1.1 415") and answer.count(b"HTTP/1.1") == 1


def test_a_decoder_that_dies_over_a_file_is_replaced_and_only_that_file_is_refused(service):
    replaced = service.metric("chexscale_decoders_replaced_total")
    decoders = children(service.process.pid, "inference.service.engine.decoder")
    for pid in decoders:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        response = thread.submit(service.predict, FILM)
        while service.metric("chexscale_files_in_work") != 1:
            time.sleep(0.02)
        time.sleep(0.2)
        for pid in decoders:
            os.kill(pid, signal.SIGKILL)
        # Until it is dead, a killed decoder would still be given a file.
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in decoders):
            time.sleep(0.02)
        refused = response.result()
    assert refused.status_code == 422
    assert refused.json()["error"] == "cannot be decoded: the decoder process died, possibly out of memory"
    # The other decoders died without a file, so no further file is refused.
    assert [service.predict(FILM).status_code for _ in decoders] == [200] * len(decoders)
    assert service.metric("chexscale_decoders_replaced_total") - replaced == len(decoders)


def test_mutated_files_are_read_or_refused_with_a_reason(service):
    """A short run of `python -m jobs.benchmarks.service.mutations`."""
    dicom = build(toy.film(150).astype(np.uint16))
    dicom.compress(uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
    seeds = [FILM, saved(FRAMES[0], "JPEG"), written(build(toy.film(150))), written(dicom)]
    rng = random.Random(0)
    from jobs.benchmarks.service.mutations import mutate

    statuses = set()
    for number in range(200):
        response = service.predict(mutate(seeds[number % len(seeds)], rng))
        answer = response.json()
        statuses.add(response.status_code)
        assert response.status_code == 200 or answer["results"][0]["error"], response.text
    assert statuses == {200, 415, 422}
