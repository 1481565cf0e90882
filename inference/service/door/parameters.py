"""What a request asks for: refuses a parameter that its route does not know, which FastAPI would ignore."""

import re

from starlette.requests import Request

from inference.service.door.refusals import Refusal, unknown


async def only_known_parameters(request: Request) -> None:
    """A dependency of routes. Raises Refusal 422 for an unknown parameter, and for one that is given twice."""
    known = parameters_of(request)
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            raise unknown("parameter", name, known, "" if known else "leave it out: this address takes none")
        if given.count(name) > 1:
            raise Refusal(422, f"parameter {name!r} is given {given.count(name)} times", "give it once")


def parameters_of(request: Request) -> list[str]:
    """Names of the parameters that the request's route takes in its query."""
    return [parameter.alias for parameter in request.scope["route"].dependant.query_params]


def prefers_picture(accept: str) -> bool:
    """Whether the header Accept names PNG, or any image, and does not rate JSON above it (RFC 9110, section 12.5.1)."""
    rates: dict[str, float] = {}
    for choice in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in choice.split(";"))
        rate = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        rates[kind] = float(rate) if re.fullmatch(r"[01](\.\d*)?", rate) else 0
    picture = max(rates.get("image/png", 0), rates.get("image/*", 0))
    return picture > 0 and picture >= rates.get("application/json", 0)
