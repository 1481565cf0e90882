"""The service with a model that sees the lungs alone: the film comes through the decoder, and back onto the page."""

import asyncio
import base64
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from etl.contract.images.lungs.crop import KEPT_WHOLE, boxes_in_crop
from etl.phantoms.film import render
from inference.film.films import Film, load_film
from inference.film.known_boxes import key_of
from inference.model.graphs import Answer
from inference.service.door.counters import Counters
from inference.service.engine.decoding import DecoderPool
from inference.service.engine.pictures import explain, picture
from tests.conftest import png
from tests.inference.toy_properties import PROPERTIES

CROPPED = replace(PROPERTIES, crop="lungs")
PHANTOM = png(render((0, 1, 0), False, False, (), 256)[0][:240])
NOISE = png(np.random.default_rng(0).integers(0, 256, (160, 160), dtype=np.uint8))
BOX = [0.3, 0.4, 0.1, 0.2]


@pytest.fixture(scope="module")
def films() -> list[Film]:
    """The phantom, and noise, as the service's decoder gives them."""

    async def decoded() -> list[Film]:
        pool = DecoderPool(1, 10**6, 1000, 30, Counters())
        await pool.start()
        try:
            shape = CROPPED.image_shape
            return [await pool.decode([content], CROPPED.to_json(), shape) for content in (PHANTOM, NOISE)]
        finally:
            await pool.stop()

    return asyncio.run(decoded())


@pytest.fixture
def explained(films) -> dict:
    """The answer to the phantom, with a known box, and a map that is hot in the box alone."""
    (place,) = boxes_in_crop(np.array([BOX]), films[0].crop, "pad")
    model = SimpleNamespace(properties=CROPPED, boxes={key_of(films[0].pixels): [[1, *place]]})
    maps = np.full((3, 8, 8), -5, np.float32)
    column, row = ((place[:2] + place[2:] / 2) * 8).astype(int)
    maps[:, row, column] = 9
    answer = Answer(np.zeros(3, np.float32), maps, np.float32(0))
    shown = explain(model, films[0], answer, ["Mass"], "youden")
    return shown | {"picture": picture(model, films[0], answer, "Nodule", "youden")}


def test_the_decoder_hands_over_the_crop_and_the_whole_film(films):
    for film, content in zip(films, (PHANTOM, NOISE), strict=True):
        expected = load_film(content, CROPPED, with_whole=True)
        np.testing.assert_array_equal(film.pixels, expected.pixels)
        assert (film.crop, film.doubts, film.fault) == (expected.crop, expected.doubts, expected.fault)
    np.testing.assert_array_equal(films[0].whole, load_film(PHANTOM, PROPERTIES).pixels)
    assert films[1].crop is None and films[1].whole is None and films[1].doubts == (KEPT_WHOLE,)


def test_film_boxes_and_maps_are_those_of_the_whole_film(films, explained):
    np.testing.assert_array_equal(unpacked(explained["image"]), films[0].whole)
    (box,) = explained["boxes"]
    np.testing.assert_allclose([box[side] for side in ("left", "top", "width", "height")], BOX, atol=1e-6)
    crop, seen = films[0].crop, explained["seen"]
    assert seen["left"] == crop.left / 256 and seen["top"] == pytest.approx((crop.top + 8) / 256)
    alpha = unpacked(explained["maps"]["Mass"]["png"])[..., 3]
    rows, columns = np.nonzero(alpha == alpha.max())
    assert BOX[0] < columns.mean() / 64 < BOX[0] + BOX[2] and BOX[1] < rows.mean() / 64 < BOX[1] + BOX[3]
    painted = cv2.imdecode(np.frombuffer(explained["picture"], np.uint8), cv2.IMREAD_COLOR)
    assert painted.shape == (64, 64, 3) and np.ptp(painted[round(64 * 0.5), round(64 * 0.35)]) > 50


def unpacked(address: str) -> np.ndarray:
    content = base64.b64decode(address.partition(",")[2])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
