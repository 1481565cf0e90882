"""A connection that does not wait for ever: uvicorn's, with limits on how long its client may neither send nor read."""

import asyncio
import math

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from inference.service.door.guard import HEADERS
from inference.service.door.refusals import json_response

MAX_CONNECTIONS = 2048
"""further ones are closed at once"""


class Connection(H11Protocol):
    """One client's, for as long as it is kept alive."""

    def __init__(self, *arguments, wait_s: float, **named):
        """wait_s: seconds from a connection, or the first byte of a later request, to the end of the headers; and
        within which some of an answer must be read."""
        super().__init__(*arguments, **named)
        self._wait_s = wait_s
        self._waits: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        # Then it is told of every answer that is not taken at once, and when it has been.
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
        """unread: bytes a while ago."""
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
        """Sets the timer where a request has begun, but its headers are not complete."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_waiting()
        elif self._waits is None:
            self._waits = self.loop.call_later(self._wait_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waits:
            self._waits.cancel()
            self._waits = None

    def send_400_response(self, msg: str) -> None:
        """As all other errors, where the request is no HTTP at all. msg: h11's, for its log."""
        # Otherwise it has its answer already.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = json_response({"error": "this is no valid HTTP request", "next": "see /openapi.json"}, 400)
            headers = [*answer.raw_headers, *HEADERS, (b"connection", b"close")]
            event = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for part in (event, h11.Data(data=answer.body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(part))
        self.transport.close()
