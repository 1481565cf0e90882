"""Films in, findings and heat maps out."""

import asyncio
import json
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from conf.words import RESEARCH_USE
from inference.film.answers import OPERATING_POINT, Findings, describe_findings
from inference.film.films import Film
from inference.film.stated import Given
from inference.model.graphs import Answer
from inference.model.inputs import chosen, inputs_of
from inference.model.properties import Properties
from inference.service import schemas
from inference.service.door.parameters import Age, Sex, View, prefers_picture, read_values
from inference.service.door.refusals import Refusal, json_response, unknown
from inference.service.door.uploads import Upload, read_uploads
from inference.service.engine.champion import QueuedModel
from inference.service.engine.decoding import CannotDecode
from inference.service.engine.pictures import explain, picture
from inference.service.openapi import PROBLEMS, file_body
from inference.service.state import ServiceState, state_of

NOT_AN_IMAGE, UNUSABLE = 415, 422
PNG = "image/png"
POINT_HEADER = "X-Operating-Point"
"""names the operating point of a picture, which has no other place for it"""
ATTRIBUTES_HEADER = "X-Attributes"
"""JSON: age, sex and view that the model got for a picture, which of them were given, and what speaks against them"""

router = APIRouter(prefix="/v1")
OperatingPoint = Annotated[
    str,
    Query(description="which set of the model's thresholds to use", examples=[OPERATING_POINT]),
]


@dataclass(frozen=True)
class Asked:
    """What a request says about all its files."""

    operating_point: str
    given: Given


@dataclass(frozen=True)
class Read:
    """One decoded file and the model's answer to it."""

    film: Film
    answer: Answer
    found: Findings
    result: dict


@router.post(
    "/predict",
    response_model=schemas.Prediction,
    responses=PROBLEMS | {status: {"model": schemas.AllUnreadable} for status in (NOT_AN_IMAGE, UNUSABLE)},
    openapi_extra=file_body("files", many=True),
)
async def predict(
    request: Request,
    operating_point: OperatingPoint = OPERATING_POINT,
    age: Age = "",
    sex: Sex = "",
    view: View = "",
) -> Response:
    """Returns the findings of one or more images. They are PNG, JPEG, TIFF, WEBP, BMP or DICOM by content.

    A file that is not a usable image gets an `error` in its place. If no file is usable, the status is 415 if none of
    them has one of these formats, otherwise 422. Research use only, not for clinical use.
    """
    state = state_of(request)
    served = state.champion.now()
    _check_point(served.model.properties, operating_point)
    asked = Asked(operating_point, read_values(served.model.properties, age, sex, view))
    with state.capacity.share() as share:
        uploads = await read_uploads(request, "files", state.settings.max_files, state.settings, share)
        reads = await all_or_none(read(state, served, upload, asked) for upload in uploads)
    answer = {
        "model": served.model.identity,
        "note": RESEARCH_USE,
        "operating_point": operating_point,
        "results": [
            {"index": index, "name": upload.name, **(_error(one) if isinstance(one, CannotDecode) else one.result)}
            for index, (upload, one) in enumerate(zip(uploads, reads, strict=True))
        ],
    }
    bad = [one for one in reads if isinstance(one, CannotDecode)]
    if len(bad) == len(reads):
        raise _unusable(bad, answer)
    return json_response(answer)


@router.post(
    "/explain",
    response_model=schemas.Explanation,
    responses=PROBLEMS
    | {
        200: {
            "content": {PNG: {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                POINT_HEADER: {"description": "of a picture", "schema": {"type": "string"}},
                ATTRIBUTES_HEADER: {
                    "description": "of a picture: age, sex and view that the model got, as JSON, if it takes them",
                    "schema": {"type": "string"},
                },
            },
        },
        404: {"model": schemas.Problem},
    },
    openapi_extra=file_body("file", many=False),
)
async def explain_(
    request: Request,
    operating_point: OperatingPoint = OPERATING_POINT,
    finding: Annotated[str | None, Query(description="return only this finding's map", examples=["Effusion"])] = None,
    age: Age = "",
    sex: Sex = "",
    view: View = "",
) -> Response:
    """Returns the findings of one image, the image as a square, a heat map per finding, and known boxes.

    With `finding`, and `image/png` in the header Accept, the answer is a picture: the image with that finding's map
    over it; the header `X-Operating-Point` names the operating point, `X-Attributes` the age, sex and view that the
    model got, if it takes them. If an image is unlike the training data, no
    finding is called on it and it has no maps: `maps` is empty, and a request for a picture gets status 422. A map
    shows what speaks for a finding, not that the finding is there. Research use only.
    """
    state = state_of(request)
    served = state.champion.now()
    properties = served.model.properties
    _check_point(properties, operating_point)
    if finding is not None and finding not in properties.findings:
        raise unknown("finding", finding, properties.findings, status=404)
    asked = Asked(operating_point, read_values(properties, age, sex, view))
    with state.capacity.share() as share:
        (upload,) = await read_uploads(request, "file", 1, state.settings, share)
        one = await read(state, served, upload, asked)
    if isinstance(one, CannotDecode):
        raise _unusable([one], {})
    names = [finding] if finding else properties.findings
    if finding and prefers_picture(request.headers.get("accept", "")):
        if not one.result["familiar"]:
            raise Refusal(UNUSABLE, one.result["warnings"][0], "ask for JSON, which shows the image without maps")
        content = await asyncio.to_thread(picture, served.model, one.film, one.answer, finding, operating_point)
        return Response(content, media_type=PNG, headers=_headers(operating_point, one))
    drawn = names if one.result["familiar"] else []
    shown = await asyncio.to_thread(explain, served.model, one.film, one.answer, drawn, operating_point)
    about = {"model": served.model.identity, "note": RESEARCH_USE, "operating_point": operating_point}
    about |= {"index": 0, "name": upload.name}
    return json_response({**about, **one.result, **shown})


@router.get("/model", response_model=schemas.ModelDescription, responses=PROBLEMS)
async def describe(request: Request) -> Response:
    """Describes the model in use, its thresholds and card, the limits of a request, and the state of the registry."""
    state = state_of(request)
    serving = state.settings
    model = state.champion.now().model
    properties = model.properties
    return json_response(
        {
            **model.identity,
            "note": RESEARCH_USE,
            "findings": properties.findings,
            "size_px": properties.size_px,
            "square": properties.square,
            "crop": properties.crop,
            "channels": properties.channels,
            "attributes": properties.attributes or None,
            "thresholds": {
                point: dict(zip(properties.findings, values, strict=True))
                for point, values in properties.thresholds.items()
            },
            "unsure": _describe_unsure(properties),
            "default_operating_point": OPERATING_POINT,
            "package": model.files.package or None,
            "registry": vars(state.champion.registry),
            "limits": {
                "files": serving.max_files,
                "file_mb": serving.max_file_mb,
                "request_mb": serving.max_request_mb,
            },
            "card": state.champion.card,
            "loaded_at": model.loaded_at,
        }
    )


async def all_or_none(works: Iterable[Coroutine]) -> list:
    """Runs all coroutines at once and returns their results in order.

    If one raises, the others are cancelled before the error is passed on, so that none outlives its request.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def read(state: ServiceState, served: QueuedModel, upload: Upload, asked: Asked) -> Read | CannotDecode:
    """Decodes one file and asks the model about it."""
    properties = served.model.properties
    try:
        film = await state.decoders.decode(upload.chunks, served.model.properties_json, properties.image_shape)
    except CannotDecode as error:
        state.counters.files.labels("refused").inc()
        return error
    stated = film.stated and film.stated.with_given(asked.given)
    inputs = inputs_of(properties, film.pixels[None], [stated.values] if stated else [])
    answer = await served.batcher.answer(*chosen(inputs, 0), alone=state.capacity.files == 1)
    about = (film.fault, asked.operating_point, stated, film.doubts)
    found = describe_findings(properties, answer.probabilities, float(answer.distances), *about)
    size = {"width_px": film.width_px, "height_px": film.height_px}
    result = {**found.to_dict(), **size, "crop": film.crop and film.crop.to_dict()}
    state.counters.files.labels("answered").inc()
    return Read(film, answer, found, result)


def _describe_unsure(properties: Properties) -> dict | None:
    if not (unsure := properties.unsure):
        return None
    bounds = ("absent_below", "present_above")
    named = {name: dict(zip(properties.findings, unsure[name], strict=True)) for name in bounds}
    return {"error_rate": unsure["error_rate"], **named}


def _headers(operating_point: str, one: Read) -> dict[str, str]:
    """What a picture cannot say."""
    found = one.found
    stated = found.stated and json.dumps(found.stated.to_dict() | {"doubts": found.doubts})
    return {POINT_HEADER: operating_point} | ({ATTRIBUTES_HEADER: stated} if stated else {})


def _check_point(properties: Properties, operating_point: str) -> None:
    if operating_point not in properties.thresholds:
        raise unknown("operating point", operating_point, properties.thresholds)


def _error(unreadable: CannotDecode) -> dict:
    return {"error": str(unreadable)}


def _unusable(bad: list[CannotDecode], answer: dict) -> Refusal:
    status = UNUSABLE if any(one.is_image for one in bad) else NOT_AN_IMAGE
    error = str(bad[0]) if len(bad) == 1 else f"none of the {len(bad)} files is a usable image"
    return Refusal(status, error, schemas.SEND_A_FILM, **answer)
