"""What OpenAPI cannot read off the routes: bodies that are read as they arrive, the key, and the errors of all."""

from fastapi.security import APIKeyHeader

from inference.service.door.uploads import MULTIPART, RAW
from inference.service.schemas import Problem

# For the description alone: guard.py asks for it.
KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="or as `Authorization: Bearer`")
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
    example = {field: ["content of film.png", "content of other.dcm"] if many else "content of film.png"}
    content = {MULTIPART: {"schema": parts, "example": example}}
    content |= {kind: {"schema": file, "example": "content of the file"} for kind in RAW}
    return {"requestBody": {"required": True, "content": content}}
