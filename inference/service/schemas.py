"""What the service says, as OpenAPI describes it. The answers themselves are made by routes.py, without these."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from inference.film.answers import NOTE

MODEL = {"name": "chexscale", "version": 3, "mode": "int8"}
FINDINGS = [
    {"name": "Cardiomegaly", "probability": 0.81, "threshold": 0.34, "present": True},
    {"name": "Effusion", "probability": 0.07, "threshold": 0.29, "present": False},
]
RESULT = {
    "index": 0,
    "name": "film.png",
    "findings": FINDINGS,
    "familiar": True,
    "distance": 11.2,
    "distance_threshold": 19.5,
    "fault": None,
    "warnings": [],
    "width_px": 1024,
    "height_px": 1024,
}
UNREADABLE = {"index": 1, "name": "notes.txt", "error": "no PNG, JPEG, TIFF or DICOM: starts with b'Dear Dr '"}
SEND_A_FILM = "send a whole PNG, JPEG, TIFF or DICOM file of one grey film"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def _shown(example: dict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]}, protected_namespaces=())


class ModelName(BaseModel):
    """Which model has answered."""

    model_config = _shown(MODEL)
    name: str
    version: int
    mode: str = Field(description="precision: int8, fp16, fp32, onnx or torch")


class Finding(BaseModel):
    """One finding of one image."""

    model_config = _shown(FINDINGS[0])
    name: str
    probability: float | None = Field(description="calibrated, 0..1; null where the image is unlike the training data")
    threshold: float | None = Field(description="from which on the finding is called; null where none is known")
    present: bool | None = Field(description="probability >= threshold; null where either is missing")


class Result(BaseModel):
    """One image."""

    model_config = _shown(RESULT)
    index: int = Field(description="of the file in the request, from 0")
    name: str = Field(description="of the file, as it was sent")
    findings: list[Finding]
    familiar: bool = Field(description="whether the image is like the training data; otherwise no finding is called")
    distance: float | None = Field(description="from the training data")
    distance_threshold: float
    fault: str | None = Field(description="why the ETL would have put the image into quarantine")
    warnings: list[str] = Field(description="what speaks against trusting this answer, in words")
    width_px: int
    height_px: int


class Unreadable(BaseModel):
    """A file that is no usable image."""

    model_config = _shown(UNREADABLE)
    index: int
    name: str
    error: str


class Prediction(BaseModel):
    """Of all files of a request, in their order."""

    model_config = _shown({"model": MODEL, "note": NOTE, "results": [RESULT, UNREADABLE]})
    model: ModelName
    note: Literal[NOTE]
    results: list[Result | Unreadable]


class Map(BaseModel):
    """Where the image speaks for a finding, to be laid over `image`."""

    png: str = Field(description="data: address of a PNG, as large as `image`, transparent where nothing speaks for it")
    low: float = Field(description="smallest evidence, log odds above the finding's threshold")
    high: float = Field(description="largest evidence; painted is what is above 0")


class Box(BaseModel):
    """Where radiologists saw a finding; as shares, 0..1, of the side of `image`."""

    finding: str
    left: float
    top: float
    width: float
    height: float


class Explanation(Result):
    """One image with its heat maps."""

    model_config = _shown(
        {
            "model": MODEL,
            "note": NOTE,
            **RESULT,
            "image": PIXEL,
            "maps": {"Cardiomegaly": {"png": PIXEL, "low": -4.1, "high": 2.3}},
            "boxes": [{"finding": "Cardiomegaly", "left": 0.3, "top": 0.5, "width": 0.4, "height": 0.3}],
        }
    )
    model: ModelName
    note: Literal[NOTE]
    image: str = Field(description="data: address of a PNG: the square that the model sees, grey")
    maps: dict[str, Map] = Field(description="by finding; empty where the image is unlike the training data")
    boxes: list[Box] = Field(description="known ones, of images of the test split")


class Registry(BaseModel):
    """The registry, from which a new champion would come."""

    reachable: bool
    since: str | None = Field(description="UTC, ISO 8601, since when it is not; null where it is")
    reason: str | None = Field(description="why no newer model answers; null where nothing is wrong")


class Limits(BaseModel):
    """What one request may hold."""

    files: int
    file_mb: float = Field(description="of each file, 10**6 bytes")
    request_mb: float = Field(description="of all of it, 10**6 bytes")


class ModelDescription(ModelName):
    """The model that answers now."""

    model_config = _shown(
        {
            **MODEL,
            "note": NOTE,
            "findings": ["Cardiomegaly", "Effusion"],
            "size_px": 256,
            "square": "pad",
            "thresholds": {"youden": {"Cardiomegaly": 0.34, "Effusion": 0.29}},
            "registry": {"reachable": True, "since": None, "reason": None},
            "limits": {"files": 64, "file_mb": 50, "request_mb": 200},
            "card": {"intended_use": NOTE},
            "loaded_at": "2026-01-31T12:00:00+00:00",
        }
    )
    note: Literal[NOTE]
    findings: list[str]
    size_px: int = Field(description="side of the square that it sees")
    square: str = Field(description="how films are made square: pad or stretch")
    thresholds: dict[str, dict[str, float | None]] = Field(description="by operating point, then by finding")
    registry: Registry
    limits: Limits
    card: dict = Field(description="model card: data, measurements, limits")
    loaded_at: str


class Health(BaseModel):
    """That it is well, or ready."""

    model_config = _shown({"status": "ok"})
    status: str


class Problem(BaseModel):
    """Why there is no answer."""

    model_config = _shown({"error": "a file of more than 50 MB", "next": "send a smaller file"})
    error: str
    next: str = Field(description="what to do")


class AllUnreadable(Problem):
    """Not one file of the request is a usable image."""

    model_config = _shown(
        {
            "error": UNREADABLE["error"],
            "next": SEND_A_FILM,
            "model": MODEL,
            "note": NOTE,
            "results": [UNREADABLE | {"index": 0}],
        }
    )
    model: ModelName | None = None
    note: str = NOTE
    results: list[Unreadable] = []
