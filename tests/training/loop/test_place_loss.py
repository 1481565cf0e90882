import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.loop.places import place_loss, shares_inside
from training.reading.augment import augment, draw_changes, origins

GRID = (0.5 / 8, 1 / 8)
UNMOVED = torch.eye(2, 3).expand(2, 2, 3)
NONE = np.zeros((0, 5), np.float32)
LEFT_TOP = np.array([[1, 0, 0, 0.25, 0.25]], np.float32)


def loss(maps: torch.Tensor, *boxes: np.ndarray) -> torch.Tensor:
    return place_loss(maps, boxes, torch.ones(2, 2), UNMOVED, GRID)


def test_it_is_minus_the_logarithm_of_the_share_inside_the_boxes():
    maps = torch.zeros(2, 2, 8, 8)
    assert loss(maps, LEFT_TOP, NONE).item() == pytest.approx(np.log(16))
    right_bottom = np.array([[1, 0.75, 0.5, 0.25, 0.5]], np.float32)
    assert loss(maps, np.concatenate([LEFT_TOP, right_bottom]), NONE).item() == pytest.approx(np.log(64 / 12))
    other_film_and_finding = np.array([[0, 0, 0, 1, 1]], np.float32)
    assert loss(maps, LEFT_TOP, other_film_and_finding).item() == pytest.approx(np.log(16))
    maps[0, 1, :2, :2] = 3
    inside = 4 * np.exp(3)
    assert loss(maps, LEFT_TOP, NONE).item() == pytest.approx(-np.log(inside / (inside + 60)), rel=1e-5)


def test_it_moves_the_map_into_the_box_and_leaves_its_mean():
    maps = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert loss(maps + 5, LEFT_TOP, NONE).item() == pytest.approx(loss(maps, LEFT_TOP, NONE).item(), rel=1e-5)
    loss(maps, LEFT_TOP, NONE).backward()
    gradient = maps.grad[0, 1]
    assert (gradient[:2, :2] < 0).all() and gradient[2:].min() > 0 and gradient[:, 2:].min() > 0
    assert gradient.sum().item() == pytest.approx(0, abs=1e-6)
    assert not maps.grad[1].any() and not maps.grad[0, 0].any()


def test_films_without_boxes_and_boxes_out_of_sight_add_nothing():
    maps = torch.randn(2, 2, 8, 8, requires_grad=True)
    moved_out = UNMOVED + torch.tensor([[0, 0, 1.5], [0, 0, 0]])
    absent = torch.tensor([[1, 0], [1, float("nan")]])
    unseen = place_loss(maps, (LEFT_TOP, LEFT_TOP), absent, UNMOVED, GRID)
    for value in (
        loss(maps, NONE, NONE),
        unseen,
        place_loss(maps, (LEFT_TOP, NONE), torch.ones(2, 2), moved_out, GRID),
    ):
        value.backward()
        assert value.item() == 0 and not maps.grad.any()


@given(st.floats(0, 0.95), st.floats(0, 0.95), st.integers(2, 30))
def test_no_box_is_too_small_for_a_coarse_map(left, top, cells):
    box = torch.tensor([[left, top, 1 / 50, 1 / 50]])
    assert shares_inside(box, UNMOVED[:1], cells, (0.5 / cells, 1 / cells)).sum() > 0


@given(st.integers(0, 1000), st.floats(0.1, 0.6), st.floats(0.1, 0.6))
def test_the_box_moves_with_the_film(seed, left, top):
    # The film is white inside the box, so each cell of the moved film is as white as its share inside.
    side, width, height = 128, 0.3, 0.25
    film = torch.zeros(1, side, side, dtype=torch.uint8)
    edges = [round(edge * side) for edge in (left, left + width, top, top + height)]
    film[0, edges[2] : edges[3], edges[0] : edges[1]] = 255
    draws = draw_changes(1, seed)
    draws[:, 4] = 0
    white = torch.nn.functional.avg_pool2d(augment(film, draws)[:, None] / 255, side // 8)[0, 0]
    box = torch.tensor([[edges[0], edges[2], edges[1] - edges[0], edges[3] - edges[2]]]) / side
    shares = shares_inside(box, origins(draws), 8, GRID)[0]
    # Four points a side are a coarse measure of a cell that the box cuts.
    assert (shares - white).abs().max() < 0.3
    assert abs(shares.mean() - white.mean()) < 0.02
