import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from etl.contract.images.lungs.crop import Crop, boxes_in_pixels
from inference.film.heatmap import boxes_on_film, encode_png, evidence_of, heat_of, heat_on_square
from tests.inference.toy_properties import PROPERTIES
from training.network.heat import BOX_RGB, FULL_COLOUR, overlay, paint_heat

STRETCHED = replace(PROPERTIES, square="stretch")


def spot(row: int, column: int, value: float, side: int = 8) -> np.ndarray:
    """Evidence at one place, none elsewhere."""
    evidence = np.full((side, side), -5, np.float32)
    evidence[row, column] = value
    return evidence


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def test_evidence_is_measured_from_the_threshold():
    """A film all of whose places are at the threshold has none; without a threshold, from even odds."""
    at_threshold = np.stack([np.full((4, 4), logit(0.3)), np.full((4, 4), 7.0), np.zeros((4, 4))]).astype(np.float32)
    assert evidence_of(at_threshold, 0, PROPERTIES) == pytest.approx(0, abs=1e-6)
    assert evidence_of(at_threshold + 2, 0, PROPERTIES) == pytest.approx(2, abs=1e-6)
    assert evidence_of(at_threshold, 2, PROPERTIES) == pytest.approx(0, abs=1e-6)
    sensitive = evidence_of(at_threshold, 0, PROPERTIES, operating_point="sensitivity_0.9")
    assert sensitive == pytest.approx(logit(0.3) - logit(0.1), abs=1e-5)
    assert sensitive.dtype == np.float32


def test_a_threshold_of_certainty_leaves_a_picture_without_warnings():
    """None of the map is above a threshold of 1, all of it above one of 0."""
    maps = np.stack([spot(2, 5, 8.0), spot(2, 5, 8.0)])
    properties = replace(PROPERTIES, thresholds={"youden": [1.0, 0.0]})
    with np.errstate(all="raise"):
        above, below = (heat_of(evidence_of(maps, finding, properties), 80, 80, PROPERTIES) for finding in (0, 1))
    assert not paint_heat(above)[..., 3].any()
    assert paint_heat(below)[..., 3].all()


def test_evidence_of_a_class_counts_the_other_classes():
    """The log odds of a film of that one place, whose logits the graph has calibrated."""
    properties = replace(PROPERTIES, exclusive=True, temperatures=[2, 2, 2])
    maps = np.random.default_rng(0).normal(0, 30, (3, 4, 4)).astype(np.float32)
    softmax = np.exp(maps.astype(np.float64)) / np.exp(maps.astype(np.float64)).sum(axis=0)
    expected = np.log(softmax[0] / softmax[1:].sum(axis=0)) - logit(0.3)
    np.testing.assert_allclose(evidence_of(maps, 0, properties), expected, atol=1e-4)


def test_heat_is_where_the_evidence_is_and_weak_evidence_stays_pale():
    heat = heat_of(spot(2, 5, 8.0), 160, 160, PROPERTIES)
    assert heat.dtype == np.float32
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (row // 20, column // 20) == (2, 5)
    assert heat.max() > 0.95
    assert heat_of(spot(2, 5, FULL_COLOUR / 4), 160, 160, PROPERTIES).max() == pytest.approx(0.25, abs=0.02)
    assert not heat_of(spot(2, 5, -1.0), 160, 160, PROPERTIES).any()


@pytest.mark.parametrize(("width", "height"), [(80, 160), (160, 80), (161, 80), (1, 1)])
def test_heat_has_the_film_s_proportions(width, height):
    assert heat_of(spot(0, 0, 5.0), width, height, PROPERTIES).shape == (height, width)
    assert heat_of(spot(0, 0, 5.0), width, height, STRETCHED).shape == (height, width)


def test_padding_is_cut_off_and_stretching_undone():
    """A wide film, evidence at its upper right: the padded square has it in its middle rows."""
    padded, stretched = heat_of(spot(2, 7, 5.0), 160, 80, PROPERTIES), heat_of(spot(0, 7, 5.0), 160, 80, STRETCHED)
    assert padded[0:20, 140:].mean() > 0.5
    assert stretched[0:10, 140:].mean() > 0.5
    assert not padded[:, :80].any()
    assert not stretched[:, :80].any()
    assert not heat_of(spot(0, 7, 5.0), 160, 80, PROPERTIES).any()


def test_no_evidence_is_transparent_and_leaves_the_film_as_it_is():
    film = np.arange(256, dtype=np.uint8).reshape(16, 16)
    heat = np.zeros((16, 16), np.float32)
    heat[0, 0] = 1
    assert paint_heat(heat)[..., 3].tolist() == [[255] + [0] * 15] + [[0] * 16] * 15
    picture = overlay(film, heat)
    assert (picture[1:] == film[1:, :, None]).all()
    assert picture[0, 0].tolist() != [0, 0, 0]
    assert (overlay(film, heat, opacity=0) == film[..., None]).all()


def test_more_evidence_is_lighter():
    """By luminance, so that it can be read without colours."""
    rgba = paint_heat(np.linspace(0, 1, 64, dtype=np.float32)[None])[0].astype(float)
    luminance = rgba[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(luminance) > -2).all()
    assert luminance[-1] - luminance[0] > 100
    assert (np.diff(rgba[:, 3]) >= 0).all()


def test_boxes_are_outlined():
    picture = overlay(np.zeros((100, 200), np.uint8), np.zeros((100, 200), np.float32), boxes=[[0.25, 0.5, 0.5, 0.25]])
    assert picture[50, 50:150].tolist() == [list(BOX_RGB)] * 100
    assert not picture[55:70, 55:145].any()
    assert not picture[:45].any()


@pytest.mark.parametrize(("width", "height"), [(80, 160), (160, 80)])
def test_boxes_stay_on_what_they_outline(width, height):
    """A light patch in the padded square and its box there; on the film the box is around the same patch."""
    square, film = np.zeros((160, 160), np.uint8), (slice((160 - height) // 2, None), slice((160 - width) // 2, None))
    square[70:90, 60:80] = 255
    film = square[film][:height, :width]
    ((left, top, box_width, box_height),) = boxes_on_film(
        [[60 / 160, 70 / 160, 1 / 8, 1 / 8]], width, height, PROPERTIES
    )
    left, top, right, bottom = (
        round(share) for share in (left * width, top * height, (left + box_width) * width, (top + box_height) * height)
    )
    assert (film[top:bottom, left:right] == 255).all()
    assert film[top:bottom, left:right].size == 400
    assert boxes_on_film([[0, 0, 1, 1]], width, height, STRETCHED) == [[0, 0, 1, 1]]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (4, 6, 4)])
def test_png_holds_the_picture(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = encode_png(picture)
    assert content.startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), picture)


CROP = Crop(left=100, top=40, width=60, height=100, film_width=200, film_height=150)


@pytest.mark.parametrize("properties", [PROPERTIES, STRETCHED])
def test_the_evidence_of_a_crop_lies_where_the_film_has_it(properties):
    """A box around the hottest place of the crop's square, mapped to the film, surrounds the film's hottest place."""
    evidence, cell = spot(2, 5, 9.0), [[5 / 8, 2 / 8, 1 / 8, 1 / 8]]
    for scale in (1, 3):
        heat = heat_of(evidence, 200 * scale, 150 * scale, properties, CROP)
        assert heat.shape == (150 * scale, 200 * scale)
        ((left, top, width, height),) = boxes_on_film(cell, 200, 150, properties, CROP)
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert left <= (column + 0.5) / heat.shape[1] <= left + width
        assert top <= (row + 0.5) / heat.shape[0] <= top + height
        outside = heat.copy()
        outside[40 * scale : 140 * scale, 100 * scale : 160 * scale] = 0
        assert not outside.any() and heat.any()
    square = heat_on_square(evidence, properties, CROP)
    row, column = np.unravel_index(square.argmax(), square.shape)
    (place,) = boxes_in_pixels([[(column + 0.5) / 64, (row + 0.5) / 64, 0, 0]], 200, 150, properties.square)
    assert left <= place[0] / 200 <= left + width and top <= place[1] / 150 <= top + height


def test_without_a_crop_the_square_has_the_evidence_of_the_model():
    evidence = spot(2, 5, 9.0)
    np.testing.assert_array_equal(heat_on_square(evidence, PROPERTIES, None), heat_of(evidence, 64, 64, PROPERTIES))
