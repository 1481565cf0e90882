"""How the service starts, who may call it, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from conf.errors import InputError
from inference.serve import listen
from tests.inference.service import toy

KEY = "a-key-of-more-than-16"
FILM = toy.png(toy.film(150))


def start(*options: str, key: str = "") -> subprocess.CompletedProcess:
    """Runs a service that cannot start, to its end."""
    command = [sys.executable, str(toy.REPOSITORY / "inference" / "serve.py"), *options]
    environment = {**os.environ, "CHEXSCALE_API_KEY": key}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        (["--serving.host=0.0.0.0"], "", "there is no API key"),
        (["--serving.host=::"], "", "there is no API key"),
        ([], "short", "has 5 characters, expected at least 16"),
        (["--serving.host=192.0.2.1"], KEY, "cannot listen on 192.0.2.1 port 8000"),
    ],
)
def test_unsafe_or_impossible_settings_are_refused(options, key, message):
    ended = start(*options, key=key)
    assert ended.returncode == 2 and message in ended.stderr and "Traceback" not in ended.stderr


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = start(f"--serving.port={port}")
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in ended.stderr


def test_only_one_of_two_services_gets_the_port():
    with (
        listen("127.0.0.1", 0) as first,
        pytest.raises(InputError, match=r"cannot listen on 127.0.0.1 port \d+ \(Address already in use\)"),
    ):
        listen("127.0.0.1", first.getsockname()[1])


def test_the_serving_side_imports_nothing_of_training(registry):
    """Looks, in a fresh process, at what the service, its decoders and the opening of a model import."""
    folder = next(registry.artifacts.glob("*/artifacts/model"))
    code = f"""
import sys
import inference.serve, inference.service.server, inference.service.engine.decoder
from pathlib import Path
from inference.model.model_files import ModelFiles
from inference.service.engine.model import open_model
model = open_model(ModelFiles("chexscale", 1, Path({str(folder)!r})), "int8")
heavy = "torch pyspark deltalake petastorm sklearn matplotlib nncf onnxruntime onnx mlflow pandas pyarrow".split()
print([name for name in heavy if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_with_a_key_only_health_and_page_need_none(registry):
    started = time.monotonic()
    with toy.running(registry, "--serving.requests_per_minute=20", key=KEY) as service:
        assert service.predict(FILM).status_code == 200
        # On an idle machine this takes 3 seconds.
        assert time.monotonic() - started < 20
        with httpx.Client(base_url=service.address) as stranger:
            for path in ("/healthz", "/readyz", "/openapi.json"):
                assert stranger.get(path).status_code == 200
            spec = stranger.get("/openapi.json").json()
            (scheme,) = spec["components"]["securitySchemes"].values()
            assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "X-API-Key")
            secured = {path for path, methods in spec["paths"].items() for one in methods.values() if "security" in one}
            assert secured == set(spec["paths"]) - {"/healthz", "/readyz"}
            # A route also matches its path with a line break at the end.
            for path in ("/v1/model", "/metrics", "/metrics%0A", "/v1/model%0A", "/nothing"):
                answer = stranger.get(path)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert "X-API-Key" in answer.json()["next"]

            def status(**headers: str) -> int:
                return stranger.get(
                    "/v1/model", headers={k.replace("_", "-"): v for k, v in headers.items()}
                ).status_code

            assert status(X_API_Key=KEY) == 200
            assert status(Authorization=f"Bearer {KEY}") == 200
            assert status(X_API_Key=KEY + "x") == status(Authorization=f"Basic {KEY}") == 401
            # Prometheus calls the pod's address.
            assert status(X_API_Key=KEY, Host="10.1.2.3:8000") == 421
            scraped = {"Host": "10.1.2.3:8000", "Authorization": f"Bearer {KEY}"}
            assert stranger.get("/metrics", headers=scraped).status_code == 200
            assert stranger.get("/metrics", headers={"Host": "10.1.2.3:8000"}).status_code == 401
            assert stranger.post("/v1/predict", files={"files": FILM}).status_code == 401
            # Clients that guess keys are slowed down too.
            statuses = [status(X_API_Key="guess") for _ in range(20)]
        assert statuses[-1] == 429 and statuses[0] == 401
        limited = service.client.get("/v1/model")
        assert limited.status_code == 429 and 1 <= int(limited.headers["retry-after"]) <= 3
        assert service.client.get("/healthz").status_code == 200
        assert KEY not in "".join(service.lines)
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(20) == 0


def test_a_thousand_files_at_once_are_answered_or_refused_and_the_last_request_before_the_end_too(registry):
    with toy.running(registry, "--serving.max_waiting=50", "--serving.requests_per_minute=0") as service:
        statuses: list[int] = []
        barrier = threading.Barrier(50)

        def send() -> None:
            with httpx.Client(base_url=service.address, timeout=60) as client:
                barrier.wait()
                files = [("files", ("film.png", FILM))] * 20
                statuses.append(client.post("/v1/predict", files=files).status_code)

        threads = [threading.Thread(target=send) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(statuses) == 50 and set(statuses) == {200, 503}
        assert service.metric("chexscale_files_in_work") == 0
        assert service.predict(FILM).status_code == 200

        uploading = (
            f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(FILM)}"
        )
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(f"{uploading}\r\n\r\n".encode() + FILM[:100])
            time.sleep(0.2)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(FILM[100:])
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 200") and b'"findings"' in answer
        assert service.process.wait(20) == 0
        assert service.places == [] and "closed" not in "".join(service.lines)
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", service.port))
