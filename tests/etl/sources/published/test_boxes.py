"""Boxes in pixels of a film become shares of the square that is stored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from conf.errors import InputError
from etl.contract.images.pixels import to_square
from etl.sources.published.boxes import place_box, read_box

TABLE = UPath("boxes.csv")
SIDE = st.integers(2, 40)


@given(SIDE, SIDE, st.data(), st.sampled_from(["pad", "stretch"]))
def test_a_box_lies_on_the_square_where_its_pixels_lie(width, height, data, square):
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    film = np.zeros((height, width), np.uint8)
    film[top:bottom, left:right] = 255
    # So many pixels that each one of the film becomes whole pixels of the square.
    size = max(width, height) if square == "pad" else width * height
    bright = to_square(film, size, square) > 127
    x, y, box_width, box_height = place_box(TABLE, 0, [left, top, right, bottom], width, height, square)
    rows, columns = np.where(bright)
    slack = 0.51 * size / min(width, height) if square == "stretch" else 1e-6
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = np.multiply([x, y, x + box_width, y + box_height], size)
    np.testing.assert_allclose(found, expected, atol=slack + 1e-6)


@pytest.mark.parametrize(
    "cells", [["1", "2", "x", "4"], ["1", "2", "", "4"], ["5", "2", "3", "4"], ["-9", "2", "3", "4"]]
)
def test_a_box_that_is_none_is_named_with_its_line(cells):
    with pytest.raises(InputError, match=r"boxes.csv line 9: the box is .*, expected left, top"):
        read_box(TABLE, 7, cells, "left, top, right and bottom")


def test_a_box_outside_of_its_film_is_refused_and_one_by_a_pixel_is_cut():
    with pytest.raises(
        InputError, match=r"line 2: the box from \(1, 1\) to \(12, 4\) exceeds its film of 10x20 pixels"
    ):
        place_box(TABLE, 0, [1, 1, 12, 4], 10, 20, "stretch")
    assert place_box(TABLE, 0, [5, 0, 11, 20], 10, 20, "stretch") == (0.5, 0, 0.5, 1)
    assert read_box(TABLE, 0, ["", "", "", ""], "") is None
