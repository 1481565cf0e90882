import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.loop.places import region_loss
from training.reading.augment import augment, draw_changes, origins
from training.reading.regions import REGION_PX, region_of

CELLS = 8
GRID = (0.5 / CELLS, 1 / CELLS)
UNMOVED = torch.eye(2, 3).expand(2, 2, 3)


def half(share: float = 0.5) -> torch.Tensor:
    """Two films: the left share of the first is lung, the second has no mask."""
    regions = torch.zeros(2, REGION_PX, REGION_PX)
    regions[0, :, : int(share * REGION_PX)] = 1
    return regions


def test_it_is_minus_the_logarithm_of_the_share_inside_the_lungs_for_each_finding_that_is_there():
    maps, labels = torch.zeros(2, 3, CELLS, CELLS), torch.tensor([[1, 0, 1], [1, 1, 1]])
    assert region_loss(maps, half(), labels, UNMOVED, GRID).item() == pytest.approx(2 * np.log(2), rel=1e-4)
    maps[0, 0, :, :4] = 5
    inside = 32 * np.exp(5)
    expected = np.log(2) - np.log(inside / (inside + 32))
    assert region_loss(maps, half(), labels, UNMOVED, GRID).item() == pytest.approx(expected, rel=1e-3)


def test_a_film_without_a_mask_or_finding_and_lungs_out_of_sight_add_nothing():
    maps = torch.randn(2, 1, CELLS, CELLS, requires_grad=True)
    there, gone = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [float("nan")]])
    far = UNMOVED + torch.tensor([[0, 0, 3.0], [0, 0, 0]])
    for regions, labels, moved in ((half(0), there, UNMOVED), (half(), gone, UNMOVED), (half(), there, far)):
        value = region_loss(maps, regions, labels, moved, GRID)
        value.backward()
        assert value.item() == 0 and not maps.grad.any()


@given(st.integers(0, 1000))
def test_the_lungs_move_with_the_film(seed):
    """A map that is large where the moved film is white, and nowhere else, costs hardly anything; its opposite much."""
    film = torch.zeros(1, 128, 128, dtype=torch.uint8)
    film[0, 32:96, 24:72] = 255
    region = torch.from_numpy(region_of(film[0].numpy().tobytes(), 128))[None]
    draws = draw_changes(1, seed)
    draws[:, 4] = 0
    white = torch.nn.functional.avg_pool2d(augment(film, draws)[:, None] / 255, 128 // CELLS)
    costs = [
        region_loss(sign * 20 * (white - 0.5), region, torch.ones(1, 1), origins(draws), GRID).item()
        for sign in (1, -1)
    ]
    assert costs[0] < 0.5 and costs[1] > 3


def test_a_region_is_the_outline_around_both_lungs():
    mask = np.zeros((96, 96), np.uint8)
    cv2.circle(mask, (28, 48), 14, 255, -1)
    cv2.circle(mask, (68, 48), 14, 255, -1)
    region = region_of(mask.tobytes(), 96)
    between, above = region[REGION_PX // 2, REGION_PX // 2], region[4, REGION_PX // 2]
    assert (between, above) == (1, 0) and region.dtype == np.float32
    assert not region_of(None, 96).any() and not region_of(bytes(96 * 96), 96).any()
