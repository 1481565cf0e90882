"""Requests that do not get what they ask for: one shape of error, which names the next step and nothing inside."""

import json
from collections.abc import Mapping

from starlette.responses import Response


class Refusal(Exception):
    """Ends a request with this status. error: what is wrong; next_step: what its sender can do; more: beside them."""

    def __init__(self, status: int, error: str, next_step: str, headers: Mapping[str, str] | None = None, **more):
        super().__init__(error)
        self.status = status
        self.content = {"error": error, "next": next_step, **more}
        self.headers = headers

    def response(self) -> Response:
        return json_response(self.content, self.status, self.headers)


def json_response(content: dict, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """NaN and infinity, which JSON does not know, are bugs and raise ValueError."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace"), status, headers, "application/json")
