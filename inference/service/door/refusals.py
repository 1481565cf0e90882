"""Refusals: all errors have one shape, which names the next step and reveals nothing internal."""

import json
from collections.abc import Mapping

from starlette.responses import Response


class Refusal(Exception):
    """Ends a request with this status. error: what is wrong; next_step: what the sender can do; more: other fields."""

    def __init__(self, status: int, error: str, next_step: str, headers: Mapping[str, str] | None = None, **more):
        super().__init__(error)
        self.status = status
        self.content = {"error": error, "next": next_step, **more}
        self.headers = headers

    def response(self) -> Response:
        return json_response(self.content, self.status, self.headers)


def json_response(content: dict, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encodes an answer as JSON. NaN and infinity, which JSON does not have, are bugs and raise ValueError."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace"), status, headers, "application/json")
