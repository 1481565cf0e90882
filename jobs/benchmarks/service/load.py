"""Compares the service with direct calls of the same model and with `mlflow models serve`, at several concurrencies.

    python -m jobs.benchmarks.service.load                                the champion of runs/demo, INT8, its phantoms
    python -m jobs.benchmarks.service.load --workspace DIR --mode fp32 --images FOLDER

Each request is one file. Direct calls decode it and ask the model without HTTP, in a process per core (at concurrency
1, in one process whose model uses all cores). `mlflow models serve` takes no files: it gets the pixels as JSON, and the
decoding beforehand is not counted. The three take turns. Clients are threads with plain sockets that send prepared
bytes. They share the machine's cores with the server that they ask; direct calls need no such clients. Prints
requests/s, the 95th percentile of the latency, and the ratios, as medians of the repetitions.
"""

import argparse
import json
import multiprocessing
import os
import re
import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command
from conf.settings import MODES
from conf.workspace import Workspace
from inference.film.films import load_film
from inference.model.graphs import open_graph, properties_of
from inference.model.registry import champion_version, fetch_model
from inference.model.variants import open_variant
from jobs.benchmarks.service.servers import MLFLOW_SERVES, NAME, SERVES, mlflow_command, service_command, started

CONCURRENCIES = (1, 8, 32)
NUM_FILES = 64
BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gWk"
CORES = len(os.sched_getaffinity(0))
DIRECT, SERVICE, MLFLOW = "direct calls", "service", "mlflow models serve"


@dataclass(frozen=True)
class Measured:
    """The figures of one repetition."""

    requests_per_s: float
    p95_ms: float


Load = Callable[[int, float], Measured]
"""(concurrency, seconds) -> the figures measured"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workspace", default="runs/demo", help="workspace of a finished register.py (default runs/demo)"
    )
    parser.add_argument("--mode", default="int8", choices=MODES, help="precision of the model (default int8)")
    parser.add_argument("--images", type=Path, help="folder of files to send (default: the workspace's phantoms)")
    parser.add_argument("--seconds", type=float, default=8, help="seconds of each measurement (default 8)")
    parser.add_argument("--repetitions", type=int, default=3, help="repetitions of each measurement (default 3)")
    arguments = parser.parse_args()
    workspace = Workspace.at(arguments.workspace)
    folder = arguments.images or workspace.phantoms / "images"
    files = sorted(path for path in folder.iterdir() if path.is_file())[:NUM_FILES]
    if not files:
        raise InputError(f"no files in {folder}: name a folder of images with --images")
    version = champion_version(workspace, NAME)
    if version is None:
        raise InputError(f"no champion in {workspace.tracking_db}: run `python inference/register.py` first")
    model = fetch_model(workspace, NAME, version)
    console = Console()
    with ExitStack() as stack:
        service = stack.enter_context(started(service_command(workspace, arguments.mode), SERVES, 1))
        loads: dict[str, Load] = {
            DIRECT: lambda concurrency, seconds: call_directly(model, arguments.mode, files, concurrency, seconds),
            SERVICE: lambda concurrency, seconds: ask(service, bodies_of(files), concurrency, seconds),
        }
        if arguments.mode == "int8":
            # The registered pyfunc model is the INT8 one.
            mlflow = stack.enter_context(started(mlflow_command(), MLFLOW_SERVES, 2, workspace))
            loads[MLFLOW] = lambda concurrency, seconds: ask(mlflow, arrays_of(model, files), concurrency, seconds)
        results = measure(loads, arguments.seconds, arguments.repetitions)
    console.print(show(results, f"{NAME} version {version}, {arguments.mode}; {len(files)} files of {folder.name}/"))
    console.print(f"{CORES} cores, shared with the clients; medians of {arguments.repetitions} repetitions")


def measure(loads: dict[str, Load], seconds: float, repetitions: int) -> dict[tuple[str, int], list[Measured]]:
    """Measures the loads in turns, after a short round that is not counted."""
    results: dict[tuple[str, int], list[Measured]] = {}
    for repetition in range(repetitions + 1):
        for concurrency in CONCURRENCIES:
            for name, load in loads.items():
                measured = load(concurrency, seconds if repetition else min(seconds, 2))
                if repetition:
                    results.setdefault((name, concurrency), []).append(measured)
    return results


def show(results: dict[tuple[str, int], list[Measured]], title: str) -> Table:
    names = list(dict.fromkeys(name for name, _ in results))
    table = Table("concurrency", "", "requests/s", "p95 ms", "to direct calls", title=title, title_justify="left")
    for concurrency in CONCURRENCIES:
        direct = results[DIRECT, concurrency]
        for name in names:
            own = results[name, concurrency]
            ratios = [one.requests_per_s / other.requests_per_s for one, other in zip(own, direct, strict=True)]
            table.add_row(
                str(concurrency),
                name,
                f"{statistics.median(one.requests_per_s for one in own):.1f}",
                f"{statistics.median(one.p95_ms for one in own):.1f}",
                f"{statistics.median(ratios):.2f}",
                end_section=name == names[-1],
            )
    return table


def call_directly(model: Path, mode: str, files: list[Path], concurrency: int, seconds: float) -> Measured:
    """Measures direct calls in as many processes as the concurrency, at most one per core; they share the cores."""
    num_processes = min(concurrency, CORES)
    context = multiprocessing.get_context("spawn")
    ready, latencies = context.Barrier(num_processes), context.Queue()
    shared = (str(model), mode, [str(file) for file in files], CORES // num_processes, seconds, ready, latencies)
    processes = [context.Process(target=_decode_and_predict, args=shared) for _ in range(num_processes)]
    for process in processes:
        process.start()
    found = [latencies.get() for _ in processes]
    for process in processes:
        process.join()
    return summarise([latency for part in found for latency in part], seconds)


def _decode_and_predict(model, mode, files, num_threads, seconds, ready, latencies) -> None:
    predict, properties = open_variant(mode, Path(model, mode), num_threads)
    contents = [Path(file).read_bytes() for file in files]

    def answer(content: bytes) -> None:
        predict(load_film(content, properties).pixels[None])

    answer(contents[0])
    ready.wait()
    latencies.put(_repeat(answer, contents, time.perf_counter() + seconds))


def ask(address: str, requests: list[bytes], concurrency: int, seconds: float) -> Measured:
    """Measures a server; each client keeps one connection and sends a request when the last one is answered."""
    place = urlsplit(address)

    def client(number: int, until: float) -> list[float]:
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            own = requests[number % len(requests) :] + requests[: number % len(requests)]
            return _repeat(lambda request: _exchange(connection, request), own, until)

    with ThreadPoolExecutor(concurrency) as clients:
        until = time.perf_counter() + seconds
        parts = list(clients.map(client, range(concurrency), [until] * concurrency))
    return summarise([latency for part in parts for latency in part], seconds)


def _repeat(call: Callable[[bytes], None], contents: list[bytes], until: float) -> list[float]:
    """Returns the seconds of each call; goes through the contents again and again until `until`."""
    seconds = []
    while True:
        for content in contents:
            started_at = time.perf_counter()
            if started_at >= until:
                return seconds
            call(content)
            seconds.append(time.perf_counter() - started_at)


def _exchange(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    answer = bytearray()
    while b"\r\n\r\n" not in answer:
        received = connection.recv(1 << 16)
        assert received, f"the server closed the connection after {bytes(answer[:200])!r}"
        answer += received
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    assert b" 200 " in head[:20], f"{head[:200]!r} {body[:500]!r}"
    missing = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) - len(body)
    while missing > 0:
        missing -= len(connection.recv(1 << 16))


def summarise(latencies: list[float], seconds: float) -> Measured:
    return Measured(len(latencies) / seconds, float(np.percentile(latencies, 95) * 1000))


def bodies_of(files: list[Path]) -> list[bytes]:
    """Returns requests for the service: forms, as browsers send them."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="film.png"\r\n\r\n'.encode()
    end = f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return [_post("/v1/predict", kind, head + file.read_bytes() + end) for file in files]


def arrays_of(model: Path, files: list[Path]) -> list[bytes]:
    """Returns requests for MLflow's server: the pixels that the model takes, as JSON."""
    properties = properties_of(open_graph(model / "int8"))
    films = [load_film(file.read_bytes(), properties).pixels for file in files]
    return [
        _post("/invocations", "application/json", json.dumps({"inputs": [film.tolist()]}).encode()) for film in films
    ]


def _post(path: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


if __name__ == "__main__":
    run_command(main)
