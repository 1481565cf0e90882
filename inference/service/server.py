"""The HTTP server around the app, and its console output. The one owner of uvicorn, with connection.py."""

import asyncio
import logging
import socket
from functools import partial

import uvicorn

from inference.service.app import Service
from inference.service.door.connection import Connection

MAX_HEADER_BYTES = 16_384
MAX_WAIT_S = 10


def run(app: Service, listener: socket.socket, grace_s: int) -> None:
    """Serves until SIGINT or SIGTERM, then answers the requests in progress for up to grace_s seconds."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("chexscale.service").setLevel(logging.INFO)
    config = uvicorn.Config(
        app,
        http=partial(Connection, wait_s=min(MAX_WAIT_S, app.upload_s)),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="warning",
        # guard.py writes its own log, without file names.
        access_log=False,
        server_header=False,
        # Anybody could send these headers and pose as a new client each time.
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_graceful_shutdown=grace_s,
    )
    server = _Server(config)
    asyncio.run(server.serve(sockets=[listener]))


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self.config.app.greeting(address_of(sockets[0])), flush=True)


def address_of(listener: socket.socket) -> str:
    """Returns the address that a browser on this machine can open."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
