"""An S3 server on this machine behind a link that is as slow as one is told: what a store far away is like."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.errors import InputError

PIECE_BYTES = 1 << 16
KEYS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_REGION": "us-east-1"}


@contextmanager
def store(folder: Path, round_trip_s: float, bytes_per_s: float) -> Iterator[None]:
    """Serves the folders in `folder` as buckets, and sets the environment of this process so that clients find them.

    round_trip_s: added to each answer. bytes_per_s: at most so much comes back on one connection. Needs versitygw, on
    the PATH or at the path CHEXSCALE_VERSITYGW. Raises InputError if it is missing or does not start.
    """
    program = os.environ.get("CHEXSCALE_VERSITYGW") or shutil.which("versitygw")
    if not program:
        raise InputError("no S3 server: install versitygw, or give its path in CHEXSCALE_VERSITYGW")
    server_port, link_port = free_port(), free_port()
    keys = {"ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
    server = [program, "--port", f"127.0.0.1:{server_port}", "posix", str(folder)]
    link = [sys.executable, "-m", __name__, *map(str, (link_port, server_port, round_trip_s / 2, bytes_per_s))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(server, env=os.environ | keys, **quiet), subprocess.Popen(link)]
    try:
        for port in (server_port, link_port):
            _await(port, processes)
        os.environ |= KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{link_port}"}
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _await(port: int, processes: list[subprocess.Popen]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise InputError(
        f"the S3 server or the link to it does not answer at port {port}: start {processes[0].args} by hand"
    )


async def _carry(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float, bytes_per_s: float
) -> None:
    """Copies one direction of a connection: each piece arrives `delay_s` later, and no faster than the rate."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def receive() -> None:
        arrives = 0.0
        while True:
            piece = await source.read(PIECE_BYTES)
            arrives = max(arrives, time.monotonic() + delay_s) + (len(piece) / bytes_per_s if bytes_per_s else 0)
            under_way.put_nowait((arrives, piece))
            if not piece:
                return

    receiver = asyncio.create_task(receive())
    try:
        while True:
            arrives, piece = await under_way.get()
            await asyncio.sleep(max(0, arrives - time.monotonic()))
            if not piece:
                break
            target.write(piece)
            await target.drain()
    except ConnectionError:
        receiver.cancel()
    finally:
        target.close()


async def _serve(port: int, server_port: int, delay_s: float, bytes_per_s: float) -> None:
    async def connect(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(_carry(client, server, delay_s, 0), _carry(answers, back, delay_s, bytes_per_s))

    async with await asyncio.start_server(connect, "127.0.0.1", port) as link:
        await link.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
