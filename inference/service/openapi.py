"""What OpenAPI cannot read off the routes: bodies that are read as they arrive, and the errors of all of them."""

from inference.service.schemas import Problem
from inference.service.uploads import MULTIPART, RAW

PROBLEMS = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "the request is damaged",
        401: "the API key is missing or wrong",
        403: "asked by a page of another site",
        408: "the upload took too long",
        413: "too large, or too many files",
        415: "no image, or another content type",
        421: "the service is not called by that name",
        422: "no usable image, or an unknown choice",
        429: "too many requests",
        503: "no model yet, or too much to do",
    }.items()
}


def file_body(field: str, many: bool) -> dict:
    """A body of multipart files, or of one file."""
    file = {"type": "string", "format": "binary"}
    schema = {"type": "array", "items": file, "minItems": 1} if many else file
    parts = {"type": "object", "required": [field], "properties": {field: schema}, "additionalProperties": False}
    content = {MULTIPART: {"schema": parts}} | {kind: {"schema": file} for kind in RAW}
    return {"requestBody": {"required": True, "content": content}}
