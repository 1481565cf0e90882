import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.contract.images.lungs.crop import Crop, boxes_in_crop, boxes_of_crop, crop_around, crop_film, place_boxes
from etl.contract.images.pixels import to_square
from etl.phantoms.film import render

FILM = render((0, 1, 0), False, False, (), 256)[0]
sides, shares = st.integers(1, 400), st.floats(0, 1)


@st.composite
def crops(draw) -> Crop:
    field = draw(shares), draw(shares), draw(shares), draw(shares)
    return crop_around(field, draw(st.floats(0, 1)), draw(sides), draw(sides))


@given(crops(), st.lists(st.tuples(shares, shares, shares, shares), max_size=3), st.sampled_from(["pad", "stretch"]))
def test_a_box_comes_back_from_the_crop(crop, boxes, square):
    there = boxes_in_crop(np.reshape(boxes, (-1, 4)), crop, square)
    np.testing.assert_allclose(boxes_of_crop(there, crop, square), np.reshape(boxes, (-1, 4)), atol=1e-6)


@given(crops())
def test_a_crop_has_pixels_and_lies_in_its_film(crop):
    assert crop.width >= 1 and crop.left >= 0 and crop.left + crop.width <= crop.film_width
    assert crop.height >= 1 and crop.top >= 0 and crop.top + crop.height <= crop.film_height


@pytest.mark.parametrize("square", ["pad", "stretch"])
@pytest.mark.parametrize("shape", [(200, 300), (300, 200)])
def test_a_box_lies_in_the_crop_where_its_pixels_do(square, shape):
    film = np.zeros(shape, np.uint8)
    film[80:120, 60:140] = 255
    crop = Crop(40, 60, 120, 100, shape[1], shape[0])
    (whole,) = boxes_in(to_square(film, 300, square), square)
    expected = boxes_in(to_square(crop.of(film), 120, square), square)
    np.testing.assert_allclose(boxes_in_crop(np.array([whole]), crop, square), expected, atol=0.02)


def boxes_in(picture: np.ndarray, square: str) -> np.ndarray:
    return np.array([cv2.boundingRect((picture > 127).astype(np.uint8))]) / len(picture)


def test_the_margin_is_a_share_of_the_field_and_ends_with_the_film():
    assert crop_around((0.4, 0.25, 0.2, 0.5), 0.5, 100, 200)[:4] == (30, 0, 40, 200)
    assert crop_around((0.4, 0.25, 0.2, 0.5), 0.0, 100, 200)[:4] == (40, 50, 20, 100)


def test_lungs_are_kept_in_grey_and_colour_alike():
    kept, crop = crop_film(FILM, "lungs", 0.05)
    assert kept.shape == (crop.height, crop.width) and 0.3 < kept.size / FILM.size < 0.9
    assert np.array_equal(kept, FILM[crop.top :, crop.left :][: crop.height, : crop.width])
    colour, same = crop_film(cv2.merge([FILM] * 3), "lungs", 0.05)
    assert same == crop and np.array_equal(colour[..., 1], kept)


def test_without_a_crop_or_without_lungs_the_film_is_kept_whole():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    for film, crop in ((FILM, "none"), (noise, "lungs")):
        kept, found = crop_film(film, crop, 0.05)
        assert kept is film and found is None
    with pytest.raises(ValueError, match="crop is 'heart', expected none or lungs"):
        crop_film(FILM, "heart", 0.05)


def test_boxes_of_a_row_keep_their_findings():
    crop = Crop(25, 25, 50, 50, 100, 100)
    assert place_boxes([3, 0.5, 0.25, 0.25, 0.5, 7, 0, 0, 1, 1], crop, "pad") == [
        3,
        0.5,
        0,
        0.5,
        1,
        7,
        -0.5,
        -0.5,
        2,
        2,
    ]
    assert place_boxes([3, 0.5, 0.25, 0.25, 0.5], None, "pad") == [3, 0.5, 0.25, 0.25, 0.5]
