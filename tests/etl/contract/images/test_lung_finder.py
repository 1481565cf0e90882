"""The finder of lungs on phantoms, on what is no chest, and where CHEXSCALE_NIH_SAMPLE is set, on real films."""

import cv2
import numpy as np
import pytest

from etl.contract.images.lungs.finder import find_lungs
from etl.phantoms.film import draw_lungs, render
from tests.etl.boxes import box_of, iou

PHANTOMS = [((0, patient, 0), patient % 2 == 0, patient % 3 == 0, ()) for patient in range(20)]


def test_the_box_surrounds_the_lungs_of_phantoms():
    overlaps, inside = [], []
    for key, female, ap, findings in PHANTOMS:
        film, _ = render(key, female, ap, findings, 256)
        mask = draw_lungs(key, female, ap, findings, 256) > 0
        left, top, width, height = (256 * edge for edge in find_lungs(film))
        overlaps.append(iou((left, top, width, height), box_of(mask)))
        kept = mask[round(top) : round(top + height), round(left) : round(left + width)]
        inside.append(kept.sum() / mask.sum())
    assert np.mean(overlaps) > 0.75 and min(overlaps) > 0.6
    assert np.mean(inside) > 0.99


def test_films_of_any_size_and_proportions_are_searched():
    film, _ = render(*PHANTOMS[1], 512)
    square, small = find_lungs(film), find_lungs(cv2.resize(film, (300, 300)))
    np.testing.assert_allclose(small, square, atol=0.02)
    wide = np.multiply(find_lungs(cv2.copyMakeBorder(film, 0, 0, 100, 60, cv2.BORDER_CONSTANT)), (672, 512, 672, 512))
    tall = np.multiply(find_lungs(cv2.copyMakeBorder(film, 60, 40, 0, 0, cv2.BORDER_CONSTANT)), (512, 612, 512, 612))
    for place in (wide - (100, 0, 0, 0), tall - (0, 60, 0, 0)):
        assert iou(tuple(place / 512), square) > 0.7


@pytest.mark.parametrize("shape", [(1, 1), (64, 4), (4, 300), (300, 300)])
def test_what_is_no_chest_has_no_lungs(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert find_lungs(noise) is None and find_lungs(np.full(shape, 90, np.uint8)) is None


def test_a_film_on_its_side_has_no_lungs():
    films = [render(*phantom, 256)[0] for phantom in PHANTOMS[:6]]
    assert not any(find_lungs(np.ascontiguousarray(np.rot90(film))) for film in films)


def test_real_films_have_lungs_and_turned_ones_have_not(nih_sample):
    films = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted((nih_sample / "images_224").glob("*.png"))]
    shares = [
        np.mean([find_lungs(np.ascontiguousarray(change(film))) is not None for film in films])
        for change in (np.asarray, np.rot90, np.flipud)
    ]
    assert shares[0] > 0.96 and shares[1] < 0.03 and shares[2] < 0.07
