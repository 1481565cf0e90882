"""Heat maps of one answer, as the page and other programs show them."""

import base64

import numpy as np

from inference.film.films import Film
from inference.film.heatmap import encode_png, evidence_of, heat_of, overlay, paint_heat
from inference.film.known_boxes import key_of
from inference.model.graphs import Answer
from inference.service.engine.model import Model


def explain(model: Model, film: Film, answer: Answer, findings: list[str], operating_point: str) -> dict:
    """The square that the model sees, each of these findings' map, and the boxes that are known of it; for JSON."""
    return {
        "image": _address(film.pixels),
        "maps": {finding: _map(model, answer, finding, operating_point) for finding in findings},
        "boxes": [
            dict(zip(("finding", "left", "top", "width", "height"), box, strict=True))
            for box in boxes_of(model, film.pixels)
        ],
    }


def picture(model: Model, film: Film, answer: Answer, finding: str, operating_point: str) -> bytes:
    """The square with this finding's map and its known boxes over it, a PNG file."""
    side = model.properties.size_px
    heat = heat_of(_evidence(model, answer, finding, operating_point), side, side, model.properties)
    boxes = [place for name, *place in boxes_of(model, film.pixels) if name == finding]
    return encode_png(overlay(film.pixels, heat, boxes=boxes))


def boxes_of(model: Model, pixels: np.ndarray) -> list[list]:
    """Finding, left, top, width and height, as shares of the square's side."""
    return [
        [model.properties.findings[int(finding)], *place] for finding, *place in model.boxes.get(key_of(pixels), [])
    ]


def _map(model: Model, answer: Answer, finding: str, operating_point: str) -> dict:
    evidence, side = _evidence(model, answer, finding, operating_point), model.properties.size_px
    heat = heat_of(evidence, side, side, model.properties)
    return {"png": _address(paint_heat(heat)), "low": float(evidence.min()), "high": float(evidence.max())}


def _evidence(model: Model, answer: Answer, finding: str, operating_point: str) -> np.ndarray:
    return evidence_of(answer.maps, model.properties.findings.index(finding), model.properties, operating_point)


def _address(picture: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(picture)).decode()}"
