"""Refuses a request whose query has a parameter that its route does not know, which FastAPI would ignore."""

import difflib

from starlette.requests import Request

from inference.service.door.refusals import Refusal

MAX_SHOWN = 50
"""characters of a parameter's name that an answer repeats"""


async def only_known_parameters(request: Request) -> None:
    """A dependency of routes. Raises Refusal 422 for an unknown parameter, and for one that is given twice."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            names = f"known are {', '.join(known)}" if known else "this address takes none: leave it out"
            raise Refusal(422, f"unknown parameter {name[:MAX_SHOWN]!r}", meant + names)
        if given.count(name) > 1:
            raise Refusal(422, f"parameter {name!r} is given {given.count(name)} times", "give it once")
