"""Checks every request before it is answered, and completes every answer on its way out: plain ASGI around the app."""

import asyncio
import hmac
import logging
import os
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from inference.service.door.counters import Counters
from inference.service.door.rate import RateLimit
from inference.service.door.refusals import Refusal

log = logging.getLogger("chexscale.service")

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# All paths other than these need the key and count towards a client's rate.
PAGE = "/page/"
PROBES = ("/healthz", "/readyz")
"""answered under any host name, because a kubelet and a load balancer call a replica by its address"""
OPEN = ("/", *PROBES, "/openapi.json")
METRICS = "/metrics"
"""answered under any host name too if there is a key: Prometheus calls each replica by its address"""
# Counters and the log name only these routes, because any other path may contain anything.
ROUTES = (*OPEN, "/v1/predict", "/v1/explain", "/v1/model", METRICS)
# How long the rest of a refused upload is read and thrown away after the answer. A connection that is closed with bytes
# unread is reset, and its client may never see why it was refused.
DRAIN_S = 2
CLOSED_BY_CLIENT = 499
ENDING = Refusal(503, "the service is shutting down", "send it again", {"Connection": "close", "Retry-After": "10"})


class Guard:
    """Checks host, origin, rate and key; then adds headers, counts, and logs one line for each answer."""

    def __init__(self, app, hosts: Iterable[str], key: str, requests_per_minute: int, counters: Counters):
        """hosts: names under which the service may be called; key: empty if none is needed."""
        self.app, self.counters = app, counters
        self.hosts = {host.lower().strip("[]") for host in hosts}
        self.key = key.encode()
        self.rate = RateLimit(requests_per_minute)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = time.perf_counter()
        headers = Headers(scope=scope)
        exchange = _Exchange(scope, headers, receive, send)
        try:
            self._check(scope, headers)
            # GET and HEAD are answered alike (RFC 9110, section 9.3.2); the server leaves the body of the latter out.
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            await self.app({**scope, "method": method}, exchange.receive, exchange.send)
        except Refusal as refusal:
            await refusal.response()(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = CLOSED_BY_CLIENT
        except asyncio.CancelledError:
            # The service is shutting down and its grace period is over: the rest of an upload is not read either.
            exchange.unread = False
            if not exchange.has_answered:
                await ENDING.response()(scope, exchange.receive, exchange.send)
        except Exception as error:
            # The error's message is not logged, because it may quote what was sent.
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s in request %s\n%s", type(error).__name__, exchange.id, trace)
        seconds, route = time.perf_counter() - started, _route(scope["path"])
        self.counters.requests.labels(route, str(exchange.status)).inc()
        self.counters.request_s.labels(route).observe(seconds)
        log.info("%s %s %s %.1f ms %s", scope["method"], route, exchange.status, seconds * 1000, exchange.id)
        return None

    def _check(self, scope, headers: Headers) -> None:
        """Raises Refusal if the request's host, origin, rate or key is not allowed."""
        host = headers.get("host", "").lower()
        by_any_name = (*PROBES, METRICS) if self.key else PROBES
        if scope["path"] not in by_any_name and _without_port(host) not in self.hosts:
            raise Refusal(421, "this host name is not allowed", "allow it with --serving.allowed_hosts")
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            raise Refusal(
                403, "the request comes from a page of another site", "use the service's own page, or no browser"
            )
        if scope["path"] in OPEN or scope["path"].startswith(PAGE):
            return
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Refusal(
                403, "the request comes from a page of another site", "use the service's own page, or no browser"
            )
        client = scope["client"][0] if scope.get("client") else ""
        wait_s = self.rate.take(client)
        if wait_s:
            raise Refusal(429, "too many requests", f"wait {wait_s} s", {"Retry-After": str(wait_s)})
        if self.key and not hmac.compare_digest(_key_of(headers).encode("latin-1"), self.key):
            raise Refusal(
                401,
                "missing or wrong API key",
                "send it in the header X-API-Key, or as Authorization: Bearer",
                {"WWW-Authenticate": "Bearer"},
            )


class _Exchange:
    """One request and its answer, to which headers are added on the way out."""

    def __init__(self, scope, headers: Headers, receive, send):
        self._receive, self._send = receive, send
        self.id = os.urandom(8).hex()
        self.status, self.has_answered = 500, False
        self._path = scope["path"]
        self.unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        # Such a client sends nothing until the first read asks it to.
        self._waits = headers.get("expect", "").lower() == "100-continue"

    async def receive(self) -> dict:
        message = await self._receive()
        self._waits = False
        if not message.get("more_body"):
            self.unread = False
        return message

    async def send(self, message: dict) -> None:
        if message["type"] == "http.response.start":
            self.status, self.has_answered = message["status"], True
            cached = b"no-cache" if _is_page(self._path) else b"no-store"
            added = [*HEADERS, (b"x-request-id", self.id.encode()), (b"cache-control", cached)]
            if self.unread:
                added.append((b"connection", b"close"))
            message = {**message, "headers": [*message["headers"], *added]}
        elif self.unread and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": message["type"]}
        await self._send(message)

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self.unread and not self._waits:
                    await self.receive()


def _is_page(path: str) -> bool:
    return path == "/" or path.startswith(PAGE)


def _route(path: str) -> str:
    return path if path in ROUTES else "/page" if path.startswith(PAGE) else "other"


def _without_port(host: str) -> str:
    """Returns the host of `name:port` or `[address]:port`, all in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _key_of(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
