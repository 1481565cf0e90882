"""Refusals: all errors have one shape, which names the next step and reveals nothing internal."""

import json
from collections.abc import Iterable, Mapping

from starlette.responses import Response

from conf.hints import meant

# Longer names are cut where an answer repeats them.
MAX_SHOWN = 50


class Refusal(Exception):
    """Ends a request with this status. error: what is wrong; next_step: what the sender can do; more: other fields."""

    def __init__(self, status: int, error: str, next_step: str, headers: Mapping[str, str] | None = None, **more):
        super().__init__(error)
        self.status = status
        self.content = {"error": error, "next": next_step, **more}
        self.headers = headers

    def response(self) -> Response:
        return json_response(self.content, self.status, self.headers)


def unknown(what: str, name: str, known: Iterable[str], next_step: str = "", status: int = 422) -> Refusal:
    """The refusal of a name that is none of the known ones, with the one that it may stand for.

    what: the kind of thing that has these names. next_step: by default, to choose one of the known names.
    """
    names, shown = list(known), name[:MAX_SHOWN]
    hint = meant(shown, names) or meant(shown.lower(), names)
    return Refusal(status, f"unknown {what} {shown!r}{hint}", next_step or f"choose one of {', '.join(names)}")


def json_response(content: dict, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encodes an answer as JSON. NaN and infinity, which JSON does not have, are bugs and raise ValueError."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace"), status, headers, "application/json")
