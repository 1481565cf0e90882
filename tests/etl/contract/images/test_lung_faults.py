"""The checks that look for lungs: on phantoms, on what is no chest, and on the real sample."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from conf.settings import Quality
from etl.contract.images.decode import decode_grey
from etl.contract.images.quality import TURNS, find_fault
from tests.etl.contract.images.test_quality import OFF

CHECKS = ("no_lungs", "rotated", "lungs_cut")
LUNGS = replace(OFF, **dict.fromkeys(CHECKS, True))


@pytest.fixture(scope="module")
def phantoms(phantoms) -> list[np.ndarray]:
    return phantoms[:40]


@pytest.fixture(scope="module")
def real(nih_sample) -> list[np.ndarray]:
    """241 real films of 1024x1024."""
    return [decode_grey(path.read_bytes()) for path in sorted((nih_sample / "images").glob("*.png"))]


def count(films: list[np.ndarray], quality: Quality = LUNGS) -> dict[str, int]:
    """First word of the fault -> films."""
    faults = [(find_fault(film, quality) or "none").split(" ")[0].rstrip(":") for film in films]
    return {fault: faults.count(fault) for fault in set(faults)}


def turned(films: list[np.ndarray], degrees: int) -> list[np.ndarray]:
    return [cv2.rotate(film, TURNS[degrees]) for film in films]


def cut(films: list[np.ndarray]) -> list[np.ndarray]:
    """Without 15% on the left, which takes the outer part of a lung."""
    return [np.ascontiguousarray(film[:, int(0.15 * film.shape[1]) :]) for film in films]


def test_phantoms_have_lungs_and_a_turn_is_named_by_its_way_back(phantoms):
    assert count(phantoms) == {"none": len(phantoms)}
    for degrees in (90, 270):
        back = [find_fault(film, LUNGS) for film in turned(phantoms, degrees)]
        named = [fault for fault in back if fault and f"{360 - degrees}" in fault and fault.startswith("rotated")]
        assert len(named) > 0.9 * len(phantoms)


def test_each_check_can_be_switched_on_by_itself(phantoms):
    film, noise = phantoms[0], np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    side = turned([film], 90)[0]
    found = {check: find_fault(noise, replace(OFF, **{check: True})) for check in CHECKS}
    assert found == {
        "no_lungs": "no lung field: nothing on the film looks like two lungs",
        "rotated": None,
        "lungs_cut": None,
    }
    assert find_fault(side, replace(OFF, no_lungs=True)).startswith("no lung field")
    assert find_fault(side, replace(OFF, rotated=True)).startswith("rotated")
    assert find_fault(side, OFF) is None and find_fault(noise, Quality(clipped=False)) is None


def test_half_of_the_films_whose_side_is_missing_are_called_cut_off(phantoms):
    found = count(cut(phantoms))
    assert found.get("lungs", 0) > 0.4 * len(phantoms), found
    faults = {find_fault(film, LUNGS) for film in cut(phantoms)}
    assert any(fault and "from the left edge, expected 1% or more" in fault for fault in faults)


def test_as_many_false_alarms_and_finds_on_real_films_as_stated(real):
    assert count(real) == {"none": 231, "no": 5, "lungs": 5}
    assert count(real, replace(OFF, rotated=True)) == {"none": 241}
    found = count(cut(real))
    assert found["lungs"] == 150
    for degrees in (90, 180, 270):
        assert count(turned(real, degrees))["rotated"] > 215
