"""A lung network as the crop opens it; the graph here calls what is darker than grey 100 lung."""

import json
from pathlib import Path

import numpy as np
import pytest

from conf.errors import InputError
from etl.contract.images.lungs.crop import crop_film, find_field
from etl.contract.images.lungs.files import ABOUT, FINDER, describe_lungs, describe_network
from etl.contract.images.lungs.graph import box_of_field, lung_field, open_network
from tests.etl.lung_networks import write_network

SIZE_PX = 64


@pytest.fixture(autouse=True)
def _opened_anew():
    open_network.cache_clear()


@pytest.fixture
def network(tmp_path) -> str:
    return str(write_network(tmp_path / "network", SIZE_PX))


def film_of(blocks: list[tuple[int, int, int, int]], height: int, width: int) -> np.ndarray:
    """Dark blocks (left, top, width, height) on a bright film."""
    film = np.full((height, width), 200, np.uint8)
    for left, top, block_width, block_height in blocks:
        film[top : top + block_height, left : left + block_width] = 40
    return film


@pytest.mark.parametrize("square", ["pad", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (200, 320), (320, 200)])
def test_the_box_lies_around_both_lungs_in_films_of_any_proportions(tmp_path, square, height, width):
    folder = str(write_network(tmp_path / "network", SIZE_PX, square))
    left, top = width // 5, height // 4
    lungs = [(left, top, width // 5, height // 2), (3 * width // 5, top, width // 5, height // 2)]
    field = find_field(film_of(lungs, height, width), folder)
    np.testing.assert_allclose(field, (0.2, 0.25, 0.6, 0.5), atol=0.03)
    assert lung_field(film_of(lungs, height, width), folder).shape == (SIZE_PX, SIZE_PX)
    kept, crop = crop_film(film_of(lungs, height, width), "lungs", 0.0, folder)
    assert kept.shape == (crop.height, crop.width) and abs(crop.width - 0.6 * width) < 0.06 * width


def test_further_parts_and_specks_do_not_count():
    field = np.zeros((100, 100), bool)
    field[20:80, 20:40], field[20:80, 60:80] = True, True
    field[0:20, 90:100], field[95:98, 2:5] = True, True
    assert box_of_field(field) == (20, 20, 60, 60)


@pytest.mark.parametrize(
    "field",
    [np.zeros((50, 50), bool), np.ones((50, 50), bool), np.eye(50, dtype=bool), np.arange(2500).reshape(50, 50) < 200],
)
def test_what_no_lungs_could_be_is_no_field(field):
    assert box_of_field(field) is None


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ((60, 30, 20, 19), "less than a third is seen of an opaque lung"),
        ((20, 82, 30, 16), "one above the other"),
        ((0, 20, 12, 60), "air that reaches the film's edge"),
        ((60, 75, 20, 25), "hardly beside each other"),
        ((60, 0, 0, 0), "a single lung"),
    ],
)
def test_a_film_without_two_lungs_beside_each_other_is_kept_whole(other, why):
    field = np.zeros((100, 100), bool)
    field[20:80, 20:40] = True
    left, top, width, height = other
    field[top : top + height, left : left + width] = True
    assert box_of_field(field) is None, why


def test_a_film_is_kept_whole_if_nobody_knows_which_parts_are_lungs():
    field = np.zeros((100, 100), bool)
    field[20:80, 30:48], field[20:60, 56:74] = True, True
    assert box_of_field(field) == (30, 20, 44, 60)
    # Air beside the body, larger than the half opaque lung.
    field[10:90, 2:14] = True
    assert box_of_field(field) is None
    # Both cover more than a quarter of the narrower one's width.
    field[:] = False
    field[20:80, 30:50], field[30:40, 30:60], field[42:90, 56:70] = True, True, True
    assert box_of_field(field) is None


def test_a_folder_that_is_no_network_is_refused(network, tmp_path):
    assert describe_lungs(FINDER) == {} and describe_lungs(network)["size_px"] == SIZE_PX
    advice = "is no folder of a lung network of this release .*give the folder that `python inference/lungs.py` names"
    with pytest.raises(InputError, match=advice):
        describe_network(str(tmp_path / "nowhere"))
    about = json.loads((Path(network) / ABOUT).read_text())
    for damaged in (about | {"format": 0}, about | {"sha256": "0"}, [], {"format": 1}):
        (Path(network) / ABOUT).write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=advice):
            open_network(network)
    (Path(network) / ABOUT).write_text("{")
    with pytest.raises(InputError, match=advice):
        open_network(network)
