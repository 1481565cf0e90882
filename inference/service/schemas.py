"""The service's answers as OpenAPI describes them. routes.py builds the answers themselves without these classes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from conf.words import RESEARCH_USE
from etl.contract.images.kinds import KINDS
from inference.film.answers import OPERATING_POINT
from training.measures.conformal import ANSWERS

MODEL = {"name": "chexscale", "version": 3, "mode": "int8"}
ABOUT = {"model": MODEL, "note": RESEARCH_USE, "operating_point": OPERATING_POINT}
ONLY = "only of a model that answers unsure (inference.error_rate), otherwise absent"
POINT = Field(description="the operating point whose thresholds decide which findings are called")
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
    "attributes": None,
    "warnings": [],
    "width_px": 1024,
    "height_px": 1024,
    "crop": None,
}
UNREADABLE = {"index": 1, "name": "notes.txt", "error": f"no {KINDS}: starts with b'Dear Dr '"}
SEND_A_FILM = f"send a whole {KINDS} file of one film"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def _shown(example: dict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]}, protected_namespaces=())


class ModelName(BaseModel):
    """The model that answered."""

    model_config = _shown(MODEL)
    name: str
    version: int
    mode: str = Field(description="precision: int8, fp16, fp32, onnx or torch")


class Finding(BaseModel):
    """One finding of one image."""

    model_config = _shown(FINDINGS[0])
    name: str
    probability: float | None = Field(description="calibrated, 0..1; null if the image is unlike the training data")
    threshold: float | None = Field(description="probability from which the finding is called; null if none is known")
    present: bool | None = Field(description="probability >= threshold; null if either is missing")
    answer: Literal[*ANSWERS] | None = Field(
        None,
        description=f"at the model's error rate; null if the image is unlike the training data; {ONLY}",
    )
    absent_below: float | None = Field(
        None, description=f"probability below which the answer is absent; null: never; {ONLY}"
    )
    present_above: float | None = Field(
        None, description=f"probability above which the answer is present; null: never; {ONLY}"
    )


class Attributes(BaseModel):
    """Age, sex and view with which one film was read; null is unknown."""

    model_config = _shown({"age_years": 64, "sex": "F", "view": None, "given": ["age_years"]})
    age_years: float | None
    sex: str | None = Field(description="F or M")
    view: str | None = Field(description="PA, AP or LATERAL")
    given: list[str] = Field(description="which of them the request gave; the others come from the file's DICOM tags")


class Crop(BaseModel):
    """A part of a film, in pixels of the film."""

    model_config = _shown({"left": 180, "top": 120, "width": 2000, "height": 1900})
    left: int
    top: int
    width: int
    height: int


class Result(BaseModel):
    """One image."""

    model_config = _shown(RESULT)
    index: int = Field(description="position of the file in the request, from 0")
    name: str = Field(description="the file name that the client sent")
    findings: list[Finding]
    familiar: bool = Field(description="whether the image is like the training data; otherwise no finding is called")
    distance: float | None = Field(description="distance from the training data")
    distance_threshold: float
    fault: str | None = Field(description="why the ETL would have put the image into quarantine; null if it would not")
    attributes: Attributes | None = Field(
        description="age, sex and view that the model got; null if it takes pixels alone"
    )
    error_rate: float | None = Field(
        None,
        description="share of films with a finding that may be answered absent, and of films without it that may be "
        f"answered present; {ONLY}",
    )
    warnings: list[str] = Field(description="reasons not to trust this answer, in words")
    width_px: int
    height_px: int
    crop: Crop | None = Field(description="the part of the film that the model saw; null: all of it")


class Unreadable(BaseModel):
    """A file that is not a usable image."""

    model_config = _shown(UNREADABLE)
    index: int
    name: str
    error: str


class Prediction(BaseModel):
    """The answers to all files of a request, in order."""

    model_config = _shown({**ABOUT, "results": [RESULT, UNREADABLE]})
    model: ModelName
    note: Literal[RESEARCH_USE]
    operating_point: str = POINT
    results: list[Result | Unreadable]


class Map(BaseModel):
    """A heat map of what speaks for one finding, to be laid over `image`."""

    png: str = Field(description="data URL of a PNG as large as `image`, transparent where nothing speaks for it")
    low: float = Field(description="smallest evidence, in log odds above the finding's threshold")
    high: float = Field(description="largest evidence, in the same unit; only evidence above 0 is painted")


class Place(BaseModel):
    """A part of `image`. Its numbers are shares, 0..1, of the side of `image`."""

    left: float
    top: float
    width: float
    height: float


class Box(Place):
    """A box in which radiologists saw a finding."""

    finding: str


class Explanation(Result):
    """One image with its heat maps."""

    model_config = _shown(
        {
            **ABOUT,
            **RESULT,
            "image": PIXEL,
            "maps": {"Cardiomegaly": {"png": PIXEL, "low": -4.1, "high": 2.3}},
            "exact_maps": True,
            "boxes": [{"finding": "Cardiomegaly", "left": 0.3, "top": 0.5, "width": 0.4, "height": 0.3}],
            "seen": None,
        }
    )
    model: ModelName
    note: Literal[RESEARCH_USE]
    operating_point: str = POINT
    image: str = Field(description="data URL of a PNG: the square that the model sees, or of a cropped film all of it")
    maps: dict[str, Map] = Field(description="heat maps by finding; empty if the image is unlike the training data")
    exact_maps: bool = Field(
        description="whether the probability is composed of the map's places; otherwise the map only compares places"
    )
    boxes: list[Box] = Field(description="known boxes; only images of the test split have any")
    seen: Place | None = Field(description="the part of `image` that the model saw; null: all of it")


class Registry(BaseModel):
    """The registry that new champions come from."""

    reachable: bool
    since: str | None = Field(description="when it became unreachable, UTC, ISO 8601; null while it is reachable")
    reason: str | None = Field(description="why no newer model is in use; null if nothing is wrong")


class Limits(BaseModel):
    """The limits of one request."""

    files: int
    file_mb: float = Field(description="size of each file, 10**6 bytes")
    request_mb: float = Field(description="size of the whole request, 10**6 bytes")


class ModelDescription(ModelName):
    """The model in use."""

    model_config = _shown(
        {
            **MODEL,
            "note": RESEARCH_USE,
            "findings": ["Cardiomegaly", "Effusion"],
            "size_px": 256,
            "square": "pad",
            "crop": "none",
            "channels": 1,
            "attributes": None,
            "thresholds": {"youden": {"Cardiomegaly": 0.34, "Effusion": 0.29}},
            "unsure": None,
            "default_operating_point": OPERATING_POINT,
            "package": None,
            "registry": {"reachable": True, "since": None, "reason": None},
            "limits": {"files": 64, "file_mb": 50, "request_mb": 200},
            "card": {"intended_use": RESEARCH_USE},
            "loaded_at": "2026-01-31T12:00:00+00:00",
        }
    )
    note: Literal[RESEARCH_USE]
    findings: list[str]
    size_px: int = Field(description="side of the square that the model sees, in pixels")
    square: str = Field(description="how films are made square: pad or stretch")
    crop: str = Field(description="part of a film that the model sees: none (all of it) or lungs")
    channels: int = Field(description="1: the model sees grey images, 3: colour")
    attributes: dict | None = Field(
        description="null if the model takes pixels alone; otherwise what it takes besides: the words for sex and view "
        "(`codes`), and the ages and numbers of films on which it was trained (`trained_on`)"
    )
    thresholds: dict[str, dict[str, float | None]] = Field(description="by operating point, then by finding")
    unsure: dict | None = Field(
        description="null if the model does not answer unsure; otherwise its `error_rate`, and for each finding the "
        "probability below which the answer is absent (`absent_below`) and above which it is present (`present_above`; "
        "null: never)"
    )
    default_operating_point: str = Field(description="the one that answers have unless a request names another")
    package: str | None = Field(
        description="SHA-256 of the package's manifest, if the service was started with a package, which stays the "
        "model in use; null if it follows the registry's champion"
    )
    registry: Registry
    limits: Limits
    card: dict = Field(description="model card: data, measurements, limits")
    loaded_at: str


class Health(BaseModel):
    """The service is running, or ready."""

    model_config = _shown({"status": "ok"})
    status: str


class Problem(BaseModel):
    """Why a request gets no answer."""

    model_config = _shown({"error": "a file is larger than 50 MB", "next": "send a smaller file"})
    error: str
    next: str = Field(description="what to do next")


class AllUnreadable(Problem):
    """No file of the request is a usable image."""

    model_config = _shown(
        {
            "error": UNREADABLE["error"],
            "next": SEND_A_FILM,
            **ABOUT,
            "results": [UNREADABLE | {"index": 0}],
        }
    )
    model: ModelName | None = None
    note: str = RESEARCH_USE
    operating_point: str | None = None
    results: list[Unreadable] = []
