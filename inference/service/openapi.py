"""What OpenAPI cannot derive from the routes: bodies that are read as they arrive, the key, and the common errors."""

from fastapi.security import APIKeyHeader

from inference.service.door.uploads import MULTIPART, RAW
from inference.service.schemas import Problem

# Only for the description; guard.py checks the key.
KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="`Authorization: Bearer` works too")
PROBLEMS = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "the request is damaged",
        401: "the API key is missing or wrong",
        403: "the request comes from a page of another site",
        408: "the upload took too long",
        413: "too large, or too many files",
        415: "not an image, or an unsupported content type",
        421: "the Host header is not one of the allowed names",
        422: "no usable image, or an unknown parameter, parameter value or field",
        429: "too many requests",
        503: "no model yet, or too much work in progress",
    }.items()
}


def file_body(field: str, many: bool) -> dict:
    """Describes a body that holds multipart files, or is itself one file."""
    file = {"type": "string", "format": "binary"}
    schema = {"type": "array", "items": file, "minItems": 1} if many else file
    parts = {"type": "object", "required": [field], "properties": {field: schema}, "additionalProperties": False}
    example = {field: ["content of film.png", "content of other.dcm"] if many else "content of film.png"}
    content = {MULTIPART: {"schema": parts, "example": example}}
    content |= {kind: {"schema": file, "example": "content of the file"} for kind in RAW}
    return {"requestBody": {"required": True, "content": content}}
