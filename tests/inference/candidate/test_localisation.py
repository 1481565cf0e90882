import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.candidate.measuring.localisation import overlaps_of, summarise
from training.network.heat import enlarge

SIZE_PX = 64
# The cells of a map with 8 cells per side, and those of one with a cell per pixel.
GRID, PIXELS = (1 / 16, 1 / 8), (0.5 / 64, 1 / 64)
FINDINGS = ["Mass", "Nodule", "Hernia"]


def maps_with_peak(row: int, column: int, side: int = 8) -> np.ndarray:
    """(3, side, side): the first finding's map has one peak, the others are flat."""
    maps = np.zeros((3, side, side), np.float32)
    maps[0, row, column] = 4
    return maps


def test_a_peak_inside_the_box_is_a_hit_and_one_outside_is_not():
    box = [0, 0.5, 0.25, 0.25, 0.25]  # columns 32 to 48, rows 16 to 32 of 64
    (inside,) = overlaps_of(maps_with_peak(2, 4), np.array(box), SIZE_PX, GRID)
    (outside,) = overlaps_of(maps_with_peak(4, 2), np.array(box), SIZE_PX, GRID)
    assert (inside.hit, outside.hit) == (True, False)
    assert inside.iou > 0.2 > outside.iou == 0
    assert inside.box_share == pytest.approx(1 / 16)


def test_several_boxes_of_a_finding_are_one_region_and_findings_are_apart():
    boxes = np.array([2, 0, 0, 0.5, 1, 0, 0, 0, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 0.5])
    first, last = overlaps_of(maps_with_peak(7, 7), boxes, 32, GRID)
    assert (first.finding, first.hit, first.box_share) == (0, True, 0.5)
    assert (last.finding, last.box_share) == (2, 0.5)


@given(st.integers(1, 62), st.integers(1, 62), st.integers(1, 3))
def test_a_map_equal_to_its_box_has_an_iou_of_one(left, top, side):
    side = min(side, 64 - left, 64 - top)
    maps = np.zeros((1, 64, 64), np.float32)
    maps[0, top : top + side, left : left + side] = 1
    (overlap,) = overlaps_of(maps, np.array([0, left / 64, top / 64, side / 64, side / 64]), SIZE_PX, PIXELS)
    assert overlap.iou == 1
    assert overlap.hit


def test_a_box_thinner_than_a_pixel_still_counts():
    (overlap,) = overlaps_of(maps_with_peak(0, 0), np.array([0, 0.5, 0.5, 0.001, 0.001]), SIZE_PX, GRID)
    assert overlap.box_share == pytest.approx(1 / 64**2)


def test_enlarging_keeps_the_place_of_the_peak():
    heat = enlarge(maps_with_peak(2, 5)[0], SIZE_PX, *GRID)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (row // 8, column // 8) == (2, 5)


def test_cells_lie_where_the_network_s_padding_puts_them():
    """The first cell lies at the image's edge, as in a ResNet, so the third cell's centre is two steps from it."""
    at_the_edge = (0.0, 0.25)
    heat = enlarge(maps_with_peak(2, 2, side=4)[0], SIZE_PX, *at_the_edge)
    assert np.unravel_index(heat.argmax(), heat.shape) in [(31, 31), (31, 32), (32, 31), (32, 32)]
    box = np.array([0, 0.45, 0.45, 0.1, 0.1])
    hits = [overlaps_of(maps_with_peak(2, 2, side=4), box, SIZE_PX, grid)[0].hit for grid in (at_the_edge, GRID)]
    assert hits == [True, False]


def test_summary_has_shares_per_finding_and_of_all():
    box = [0, 0.5, 0.25, 0.25, 0.25]
    overlaps = [overlaps_of(maps_with_peak(*peak), np.array(box), SIZE_PX, GRID)[0] for peak in ((2, 4), (4, 2))]
    summary = summarise(overlaps, FINDINGS)
    assert list(summary) == ["Mass", "all"]
    assert summary["all"]["images"] == 2
    assert summary["all"]["pointing_game"] == 0.5
    assert summary["all"]["chance"] == pytest.approx(1 / 16)
    assert summary["all"]["iou_0.1"] == 0.5
    assert summarise([], FINDINGS) == {}
