"""An S3 server on this machine, behind a link with a given delay, rate and faults, in place of a store far away."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from conf.errors import InputError

PIECE_BYTES = 1 << 16
PROGRAM = "versitygw"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest", "AWS_REGION": "us-east-1"}
Fault = Literal["slow down", "internal error", "forbidden", "reset", "drop", "stall", "silence", "trickle"]
"""answers 503, 500 or 403; the connection is reset instead of an answer, or dropped in its middle; the answer stops in
its middle, or never begins; the answer comes at TRICKLE bytes per second"""
ERRORS = {"slow down": "503 Slow Down|SlowDown", "internal error": "500 Internal Server Error|InternalError"}
ERRORS |= {"forbidden": "403 Forbidden|ExpiredToken"}
MIDDLE_BYTES, TRICKLE = 2000, 1000


class Link:
    """Controls the program between the server and its clients, through the program's standard input."""

    def __init__(self, port: int, process: subprocess.Popen):
        self.port, self.process = port, process

    def fail(self, fault: Fault, number: int = -1, of: str = ".parquet") -> None:
        """The next `number` requests to read or write an object with `of` in its address meet this fault.

        number: -1: all from now on; 0: none.
        """
        assert fault in get_args(Fault), fault
        self._tell(f"{fault},{number},{of}")

    def connect(self, server_port: int) -> None:
        """Cuts all connections; new ones go to this server."""
        self._tell(f"server,{server_port}")

    def _tell(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        # It answers when it has understood.
        self.process.stdout.readline()


@contextmanager
def linked(server_port: int, round_trip_s: float = 0, bytes_per_s: float = 0) -> Iterator[Link]:
    """A link to the server, on a port of its own. round_trip_s, bytes_per_s: see store; 0: no limit."""
    port = free_port()
    command = [sys.executable, "-m", __name__, *map(str, (port, server_port, round_trip_s / 2, bytes_per_s))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            _await(port, process)
            yield Link(port, process)
        finally:
            process.kill()


@contextmanager
def store(folder: Path, round_trip_s: float, bytes_per_s: float) -> Iterator[Link]:
    """Serves the folders in `folder` as buckets, and sets the environment of this process so that clients find them.

    round_trip_s: added to each answer. bytes_per_s: at most so much comes back on one connection. Raises InputError if
    versitygw is missing or does not start.
    """
    program = find_server()
    if not program:
        raise InputError("no S3 server: install versitygw, or give its path in CHEXSCALE_VERSITYGW")
    with s3_server(program, folder) as server_port, linked(server_port, round_trip_s, bytes_per_s) as link:
        os.environ |= KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{link.port}"}
        yield link


def find_server() -> str | None:
    """The path of versitygw: CHEXSCALE_VERSITYGW, or on the PATH, or where Go installs programs; None without one."""
    return (
        os.environ.get("CHEXSCALE_VERSITYGW") or shutil.which(PROGRAM) or shutil.which(Path.home() / "go/bin" / PROGRAM)
    )


@contextmanager
def s3_server(program: str, folder: Path, secret: str = KEYS["AWS_SECRET_ACCESS_KEY"]) -> Iterator[int]:
    """Serves the folders in `folder` as buckets for KEYS, and gives the port. Raises InputError if that fails."""
    port = free_port()
    owner = {"ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": secret}
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
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    write: Callable[[bytes], Awaitable[None]],
    delay_s: float,
    bytes_per_s: float,
) -> None:
    """Copies one direction of a connection: each piece is written `delay_s` later, and no faster than the rate."""
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
            await write(piece)
            await target.drain()
    except ConnectionError:
        receiver.cancel()
    finally:
        target.close()


@dataclass
class _Orders:
    """What the link was told last."""

    server_port: int
    fault: str = ""
    number: int = 0
    hit: str = ""
    never: asyncio.Event = field(default_factory=asyncio.Event)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    """the clients' connections"""

    def next_fault(self) -> str:
        fault = self.fault if self.number else ""
        self.number -= self.number > 0
        return fault

    async def listen(self) -> None:
        told = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
        while line := (await told.readline()).decode().strip():
            word, number, *hit = line.split(",")
            if word == "server":
                self.server_port = int(number)
                for client in tuple(self.open):
                    client.transport.abort()
            else:
                self.fault, self.number, self.hit = word, int(number), hit[0]
            print(line, flush=True)


class _Connection:
    """Passes on what a client and the server write, unless it was told otherwise."""

    def __init__(self, orders: _Orders, client: asyncio.StreamWriter, server: asyncio.StreamWriter):
        self._orders, self._client, self._server = orders, client, server
        self._fault, self._answered_bytes = "", 0

    async def request(self, piece: bytes) -> None:
        begins = piece.startswith((b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE "))
        if begins:
            is_hit = piece.startswith((b"GET ", b"PUT ")) and self._orders.hit in piece.partition(b"\r\n")[0].decode(
                "latin-1"
            )
            self._fault, self._answered_bytes = self._orders.next_fault() if is_hit else "", 0
        if self._fault == "reset":
            self._client.transport.abort()
            raise ConnectionResetError
        if self._fault in ERRORS:
            if not begins:
                return
            status, _, code = ERRORS[self._fault].partition("|")
            body = f"<Error><Code>{code}</Code><Message>Told to fail.</Message></Error>"
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            self._client.write((head + body).encode())
        elif self._fault != "silence":
            self._server.write(piece)

    async def answer(self, piece: bytes) -> None:
        if self._fault in ("drop", "stall"):
            piece = piece[: max(0, MIDDLE_BYTES - self._answered_bytes)]
            self._answered_bytes += len(piece)
        self._client.write(piece[:TRICKLE] if self._fault == "trickle" else piece)
        if self._fault == "trickle":
            for start in range(TRICKLE, len(piece), TRICKLE):
                await asyncio.sleep(1)
                self._client.write(piece[start : start + TRICKLE])
        if self._answered_bytes >= MIDDLE_BYTES:
            await self._client.drain()
            if self._fault == "stall":
                await self._orders.never.wait()
            self._client.transport.abort()
            raise ConnectionResetError


async def _serve(port: int, server_port: int, delay_s: float, bytes_per_s: float) -> None:
    orders = _Orders(server_port)

    async def connect(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", orders.server_port)
        except OSError:
            back.transport.abort()
            return
        connection = _Connection(orders, back, server)
        orders.open.add(back)
        try:
            await asyncio.gather(
                _carry(client, server, connection.request, delay_s, bytes_per_s),
                _carry(answers, back, connection.answer, delay_s, bytes_per_s),
            )
        finally:
            orders.open.discard(back)

    async with await asyncio.start_server(connect, "127.0.0.1", port) as link:
        await asyncio.gather(link.serve_forever(), orders.listen())


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
