"""What a request asks for: refuses a parameter that its route does not know, which FastAPI would ignore."""

import re
from typing import Annotated

from fastapi import Query
from starlette.requests import Request

from conf.errors import InputError
from conf.words import SEXES, VIEWS
from inference.film.stated import EXPECTED, Given, read_given, refuse_given
from inference.model.properties import Properties
from inference.service.door.refusals import Refusal, unknown


def _optional(name: str, *examples: str) -> object:
    about = f"{EXPECTED[name]}; for every file of the request, whatever its DICOM tags say; only for a model that "
    about += "takes it (`attributes` of /v1/model); if omitted, the tags decide"
    return Query(description=about, examples=list(examples))


Age = Annotated[str, _optional("age", "64", "18M", "unknown")]
Sex = Annotated[str, _optional("sex", *SEXES, "unknown")]
View = Annotated[str, _optional("view", *VIEWS, "unknown")]


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


def read_values(properties: Properties, age: str, sex: str, view: str) -> Given:
    """The values in the request. Raises Refusal 422 for one that is not understood or that the model does not take."""
    try:
        given = read_given(age, sex, view)
    except InputError as error:
        raise Refusal(422, str(error), "correct it, or leave it out to take what the file's DICOM tags state") from None
    try:
        refuse_given(properties, given)
    except InputError as error:
        reason, _, step = str(error).partition(": ")
        raise Refusal(422, reason, step) from None
    return given
