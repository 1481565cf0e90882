"""Heat maps for one answer, as the page and other programs show them."""

import base64

import numpy as np

from inference.film.films import Film
from inference.film.heatmap import encode_png, evidence_of, heat_of
from inference.film.known_boxes import key_of
from inference.model.graphs import Answer
from inference.service.engine.model import OpenModel
from training.network.heat import overlay, paint_heat


def explain(model: OpenModel, film: Film, answer: Answer, findings: list[str], operating_point: str) -> dict:
    """Returns, for JSON, the square that the model sees, a map of each of these findings, and the known boxes."""
    return {
        "image": _address(film.pixels),
        "maps": {finding: _map(model, answer, finding, operating_point) for finding in findings},
        "exact_maps": model.properties.exact_maps,
        "boxes": [
            dict(zip(("finding", "left", "top", "width", "height"), box, strict=True))
            for box in boxes_of(model, film.pixels)
        ],
    }


def picture(model: OpenModel, film: Film, answer: Answer, finding: str, operating_point: str) -> bytes:
    """Returns a PNG file of the square with this finding's map and known boxes drawn over it."""
    side = model.properties.size_px
    heat = heat_of(_evidence(model, answer, finding, operating_point), side, side, model.properties)
    boxes = [place for name, *place in boxes_of(model, film.pixels) if name == finding]
    return encode_png(overlay(film.pixels, heat, boxes=boxes))


def boxes_of(model: OpenModel, pixels: np.ndarray) -> list[list]:
    """Returns the known boxes: finding, left, top, width and height, the last four as shares of the square's side."""
    return [
        [model.properties.findings[int(finding)], *place] for finding, *place in model.boxes.get(key_of(pixels), [])
    ]


def _map(model: OpenModel, answer: Answer, finding: str, operating_point: str) -> dict:
    evidence, side = _evidence(model, answer, finding, operating_point), model.properties.size_px
    heat = heat_of(evidence, side, side, model.properties)
    return {"png": _address(paint_heat(heat)), "low": float(evidence.min()), "high": float(evidence.max())}


def _evidence(model: OpenModel, answer: Answer, finding: str, operating_point: str) -> np.ndarray:
    return evidence_of(answer.maps, model.properties.findings.index(finding), model.properties, operating_point)


def _address(picture: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(picture)).decode()}"
