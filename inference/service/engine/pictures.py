"""Heat maps for one answer, as the page and other programs show them."""

import base64

import numpy as np

from etl.contract.images.lungs.crop import Crop, boxes_in_square, boxes_of_crop
from inference.film.films import Film
from inference.film.heatmap import encode_png, evidence_of, heat_on_square
from inference.film.known_boxes import key_of
from inference.model.graphs import Answer
from inference.service.engine.model import OpenModel
from training.network.heat import overlay, paint_heat


def explain(model: OpenModel, film: Film, answer: Answer, findings: list[str], operating_point: str) -> dict:
    """Returns, for JSON, the film's square, a map of each of these findings, known boxes, and what the model saw."""
    return {
        "image": _address(_shown(film)),
        "maps": {finding: _map(model, film, answer, finding, operating_point) for finding in findings},
        "exact_maps": model.properties.exact_maps,
        "boxes": [{"finding": finding, **_named(place)} for finding, *place in boxes_of(model, film)],
        "seen": film.crop and _named(seen_part(film.crop, model.properties.square)),
    }


def picture(model: OpenModel, film: Film, answer: Answer, finding: str, operating_point: str) -> bytes:
    """Returns a PNG file of the film's square with this finding's map and known boxes drawn over it."""
    heat = heat_on_square(_evidence(model, answer, finding, operating_point), model.properties, film.crop)
    boxes = [place for name, *place in boxes_of(model, film) if name == finding]
    return encode_png(overlay(_shown(film), heat, boxes=boxes))


def boxes_of(model: OpenModel, film: Film) -> list[list]:
    """Returns the known boxes: finding, left, top, width and height, the last four as shares of the film's square."""
    known = model.boxes.get(key_of(film.pixels), [])
    places = np.array([place for _, *place in known]).reshape(-1, 4)
    if film.crop:
        places = boxes_of_crop(places, film.crop, model.properties.square)
    return [
        [model.properties.findings[int(finding)], *place]
        for (finding, *_), place in zip(known, places.tolist(), strict=True)
    ]


def seen_part(crop: Crop, square: str) -> list[float]:
    """Returns the part of the film that the model saw, as a box of shares of the film's square."""
    return boxes_in_square(crop[:4], crop.film_width, crop.film_height, square)[0].tolist()


def _shown(film: Film) -> np.ndarray:
    """The whole film as a square; what the model saw of it may be less."""
    return film.pixels if film.whole is None else film.whole


def _named(place: list[float]) -> dict[str, float]:
    return dict(zip(("left", "top", "width", "height"), place, strict=True))


def _map(model: OpenModel, film: Film, answer: Answer, finding: str, operating_point: str) -> dict:
    evidence = _evidence(model, answer, finding, operating_point)
    heat = heat_on_square(evidence, model.properties, film.crop)
    return {"png": _address(paint_heat(heat)), "low": float(evidence.min()), "high": float(evidence.max())}


def _evidence(model: OpenModel, answer: Answer, finding: str, operating_point: str) -> np.ndarray:
    return evidence_of(answer.maps, model.properties.findings.index(finding), model.properties, operating_point)


def _address(picture: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(picture)).decode()}"
