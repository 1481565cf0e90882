"""A uvicorn connection that does not wait for ever for a client that sends no headers or reads no answer."""

import asyncio
import math

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from inference.service.door.guard import HEADERS
from inference.service.door.refusals import json_response

MAX_CONNECTIONS = 2048
"""more connections than these are closed at once"""


class Connection(H11Protocol):
    """One client's connection, for as long as it is kept alive."""

    def __init__(self, *arguments, wait_s: float, **named):
        """wait_s: seconds within which the headers must be complete, counted from the connection or from the first byte
        of a later request, and seconds within which the client must read some of an answer."""
        super().__init__(*arguments, **named)
        self._wait_s = wait_s
        self._waits: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        # With 0, asyncio calls pause_writing for every answer that is not read at once, and resume_writing afterwards.
        transport.set_write_buffer_limits(0)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_headers()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(error)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading(math.inf)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    def _expect_reading(self, unread: float) -> None:
        """Ends the connection if nothing was read since the last look. unread: bytes that were unread then."""
        now = self.transport.get_write_buffer_size()
        if now >= unread:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(self._wait_s, self._expect_reading, now)

    def _stop_watching(self) -> None:
        if self._unread:
            self._unread.cancel()
            self._unread = None

    def _expect_headers(self) -> None:
        """Runs the timer while the headers of a request are incomplete."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_waiting()
        elif self._waits is None:
            self._waits = self.loop.call_later(self._wait_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waits:
            self._waits.cancel()
            self._waits = None

    def send_400_response(self, msg: str) -> None:
        """Answers bytes that are not HTTP with an error of the usual shape. msg: uvicorn's text, already logged."""
        # In any other state the request already has its answer.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = json_response({"error": "this is not a valid HTTP request", "next": "see /openapi.json"}, 400)
            headers = [*answer.raw_headers, *HEADERS, (b"connection", b"close")]
            event = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for part in (event, h11.Data(data=answer.body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(part))
        self.transport.close()
