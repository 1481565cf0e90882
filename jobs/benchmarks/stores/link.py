"""An S3 server on this machine, behind a link with a given delay and rate, in place of a store that is far away."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from conf.errors import InputError

PIECE_BYTES = 1 << 16
PROGRAM = "versitygw"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest", "AWS_REGION": "us-east-1"}


@contextmanager
def store(folder: Path, round_trip_s: float, bytes_per_s: float, faults: str = "") -> Iterator[None]:
    """Serves the folders in `folder` as buckets, and sets the environment of this process so that clients find them.

    round_trip_s: added to each answer. bytes_per_s: at most so much comes back on one connection. faults: a file, see
    Faults. Raises InputError if versitygw is missing or does not start.
    """
    program = find_server()
    if not program:
        raise InputError("no S3 server: install versitygw, or give its path in CHEXSCALE_VERSITYGW")
    with s3_server(program, folder) as server_port:
        port = free_port()
        with slow_link(port, server_port, round_trip_s, bytes_per_s, faults):
            os.environ |= KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
            yield


@contextmanager
def slow_link(port: int, server_port: int, round_trip_s: float, bytes_per_s: float, faults: str = "") -> Iterator[None]:
    """A link from one port to another of this machine, see store."""
    link = subprocess.Popen(
        [sys.executable, "-m", __name__, *map(str, (port, server_port, round_trip_s / 2, bytes_per_s, faults))]
    )
    try:
        _await(port, link)
        yield
    finally:
        link.kill()
        link.wait()


def find_server() -> str | None:
    """The path of versitygw: CHEXSCALE_VERSITYGW, or on the PATH, or where Go installs programs; None without one."""
    return (
        os.environ.get("CHEXSCALE_VERSITYGW") or shutil.which(PROGRAM) or shutil.which(Path.home() / "go/bin" / PROGRAM)
    )


@contextmanager
def s3_server(program: str, folder: Path) -> Iterator[int]:
    """Serves the folders in `folder` as buckets for KEYS, and gives the port. Raises InputError if that fails."""
    port = free_port()
    owner = {"ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
    command = [program, "--quiet", "--port", f"127.0.0.1:{port}", "posix", str(folder)]
    server = subprocess.Popen(command, env=os.environ | owner, stdout=subprocess.DEVNULL)
    try:
        _await(port, server)
        yield port
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _await(port: int, process: subprocess.Popen) -> None:
    """Waits until the process listens. Raises InputError if it ends, or takes too long."""
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise InputError(f"{' '.join(process.args)} does not listen at port {port}: run it by hand to see why")


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


class Faults:
    """What a link does to its connections, by the word in a file that may change at any time; without one, nothing.

    refuse: closes each connection at once. cut, stall: after CUT_BYTES of an answer. slow_down, forbidden: answers
    itself. A number after the word, as in "cut 3", is of so many connections, after which the link is well again.
    """

    CUT_BYTES = 2000
    ANSWERS: ClassVar = {"slow_down": "503 Slow Down", "forbidden": "403 Forbidden"}
    CODES: ClassVar = {"slow_down": "SlowDown", "forbidden": "ExpiredToken"}

    def __init__(self, file: str = ""):
        self._file = Path(file)

    def next(self) -> str:
        """The fault of the next connection, or an empty word."""
        if not self._file.is_file():
            return ""
        word, _, number = self._file.read_text().partition(" ")
        if number:
            self._file.write_text(f"{word} {int(number) - 1}" if int(number) > 1 else "")
        return word

    async def act(self, fault: str, client: asyncio.StreamReader, back: asyncio.StreamWriter, server_port: int) -> None:
        """Serves one connection with this fault."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._act(fault, client, back, server_port)
        back.close()

    async def _act(
        self, fault: str, client: asyncio.StreamReader, back: asyncio.StreamWriter, server_port: int
    ) -> None:
        head = b"" if fault == "refuse" else await client.readuntil(b"\r\n\r\n")
        if fault in self.ANSWERS:
            body = f"<Error><Code>{self.CODES[fault]}</Code><Message>{fault} by the link</Message></Error>".encode()
            body = b"" if head.startswith(b"HEAD") else body
            answer = f"HTTP/1.1 {self.ANSWERS[fault]}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            back.write(answer.encode() + body)
        elif fault in ("cut", "stall"):
            answers, server = await asyncio.open_connection("127.0.0.1", server_port)
            server.write(head)
            back.write(await answers.read(self.CUT_BYTES))
            await back.drain()
            if fault == "stall":
                await client.read()
            server.close()


async def _serve(port: int, server_port: int, delay_s: float, bytes_per_s: float, faults: Faults) -> None:
    async def connect(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if fault := faults.next():
            await faults.act(fault, client, back, server_port)
            return
        answers, server = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(_carry(client, server, delay_s, 0), _carry(answers, back, delay_s, bytes_per_s))

    async with await asyncio.start_server(connect, "127.0.0.1", port) as link:
        await link.serve_forever()


if __name__ == "__main__":
    asyncio.run(
        _serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), Faults(*sys.argv[5:]))
    )
