"""The checks on toy films, phantoms and the real sample: how many faults they find, and how many false ones."""

import re
import time
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from conf.settings import Quality
from etl.contract.images import quality
from etl.contract.images.decode import decode_grey
from etl.contract.images.quality import adjust_intensity, find_fault, frontal_score, upright_score
from jobs.benchmarks.inference.strange import lateral

OFF = Quality(0, *[False] * (len(fields(Quality)) - 1))
ALL = Quality(lateral=True)
GREY = st_np.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def only(check: str) -> Quality:
    return replace(OFF, **{check: getattr(ALL, check)})


def frontal(size_px: int = 256) -> np.ndarray:
    """A toy frontal film: FRONTAL_CHEST enlarged."""
    return cv2.resize(quality.FRONTAL_CHEST.astype(np.uint8), (size_px, size_px), interpolation=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def real_films(nih_sample) -> list[np.ndarray]:
    """806 frontal films of 555 patients, 224x224."""
    films = [decode_grey(path.read_bytes()) for path in sorted((nih_sample / "images_224").glob("*.png"))]
    assert len(films) > 500
    return films


@pytest.fixture(scope="module")
def original_films(nih_sample) -> list[np.ndarray]:
    """60 of these films in NIH's original 1024x1024."""
    return [decode_grey(path.read_bytes()) for path in sorted((nih_sample / "images").glob("*.png"))[::4]]


def share_of(reason: str, films: list[np.ndarray]) -> float:
    """Share of the films whose fault begins with `reason`, with every check on."""
    return np.mean([(find_fault(film, ALL) or "").startswith(reason) for film in films])


def inverted(films: list[np.ndarray]) -> list[np.ndarray]:
    return [255 - film for film in films]


def film_insides(films: list[np.ndarray]) -> list[np.ndarray]:
    return [quality._inside_border(quality._sample(film)) for film in films]


FAULTY = {
    "min_side_px": (frontal()[:100], r"too small: 256x100 pixels, expected sides of at least 128"),
    "constant": (100 + frontal() // 20, r"constant: .* span \d grey values, expected at least 16"),
    "clipped": (np.where(frontal() > 140, 255, 0).astype(np.uint8), r"clipped: 100.0% of the film .* at most 50%"),
    "inverted": (255 - frontal(), r"inverted: correlation -0.9\d with .*, expected at least -0.2"),
    "lateral": (np.roll(frontal(), 64, axis=1), r"lateral view: correlation -0.\d\d with .*, expected at least 0.0"),
}


@pytest.mark.parametrize(("check", "image", "reason"), [(check, *faulty) for check, faulty in FAULTY.items()])
def test_a_fault_is_found_with_its_number_and_limit_and_only_where_its_check_is_on(check, image, reason):
    assert find_fault(image, OFF) is None
    assert find_fault(frontal(), only(check)) is None
    for switched in (ALL, only(check)):
        found = find_fault(image, switched)
        assert found is not None
        assert re.fullmatch(reason, found), found


def test_reasons_come_in_the_order_of_the_settings():
    image = np.zeros((100, 100), np.uint8)
    assert find_fault(image, ALL).startswith("too small")
    assert find_fault(image, replace(ALL, min_side_px=0)).startswith("constant")
    assert find_fault(image, replace(ALL, min_side_px=0, constant=False)).startswith("clipped")


@pytest.mark.parametrize("check", ["constant", "clipped", "inverted", "lateral"])
@given(image=GREY)
def test_every_image_is_judged_however_small(check, image):
    for extreme in (image, np.zeros_like(image), np.full_like(image, 255)):
        assert find_fault(extreme, only(check)) is None or find_fault(extreme, only(check)).startswith(check)


def test_a_blank_film_with_lettering_is_constant():
    blank = np.full((512, 512), 3, np.uint8)
    cv2.putText(blank, "R", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, 2)
    assert find_fault(blank, ALL).startswith("constant: 98% of the pixels span 0 grey values")


def test_a_picture_that_is_nearly_all_border_is_clipped():
    picture = np.zeros((256, 256), np.uint8)
    picture[96:160, 96:160] = frontal(64)
    assert find_fault(picture, only("clipped")).startswith("clipped: 6.")


def test_rows_half_black_and_half_white_are_clipped_film_and_no_border():
    picture = frontal()
    picture[:154, :128], picture[:154, 128:] = 0, 255
    assert find_fault(picture, only("clipped")).startswith("clipped: 59.4%")


EDGE = st.integers(0, 60)


@given(st.tuples(EDGE, EDGE, EDGE, EDGE), st.booleans())
def test_a_border_with_some_noise_is_no_fault_and_hides_none(edges, white):
    top, bottom, left, right = edges

    def framed(film):
        noise = np.random.default_rng(0).integers(0, 9, (256 + top + bottom, 256 + left + right), dtype=np.uint8)
        picture = 255 - noise if white else noise
        picture[top : top + 256, left : left + 256] = film
        return picture

    assert find_fault(framed(frontal()), ALL) is None
    assert find_fault(framed(255 - frontal()), ALL).startswith("inverted")


def test_lettering_on_the_border_belongs_to_it():
    picture = np.zeros((256, 256), np.uint8)
    picture[64:192, 64:192] = frontal(128)
    picture[20:28, 20:32] = 128
    assert film_insides([picture])[0].shape == (32, 32)


@given(st.integers(0, 1000))
def test_noise_is_neither_upright_nor_inverted(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (128, 128), dtype=np.uint8)
    assert find_fault(noise, replace(ALL, lateral=False)) is None
    assert abs(upright_score(noise)) < 0.1


@given(GREY)
def test_an_inverted_film_has_the_opposite_score(film):
    assert upright_score(255 - film) == pytest.approx(-upright_score(film), abs=0.001)
    assert -1.001 <= upright_score(film) <= 1.001
    assert -1.001 <= frontal_score(film) <= 1.001


def test_phantoms_pass_and_their_inversions_do_not(phantoms):
    assert [find_fault(film, ALL) for film in phantoms] == [None] * len(phantoms)
    assert share_of("inverted", inverted(phantoms)) == 1


def test_crude_laterals_are_found_more_often_than_not_and_never_called_inverted():
    films = [lateral(seed) for seed in range(60)]
    assert share_of("lateral", films) > 0.6
    assert share_of("inverted", films) == 0


def test_real_films_have_no_fault(real_films, original_films):
    # Some of the originals are 64x64 pixels.
    faults = {find_fault(film, Quality(min_side_px=0)) for film in real_films + original_films}
    assert faults == {None}


def test_real_films_once_inverted_are_found(real_films, original_films):
    assert share_of("inverted", inverted(real_films)) > 0.99
    assert share_of("inverted", inverted([film for film in original_films if min(film.shape) >= 128])) == 1


def test_turned_films_are_called_inverted_as_often_as_stated(real_films):
    assert share_of("inverted", [np.rot90(film, 2) for film in real_films]) == pytest.approx(1 / 3, abs=0.05)
    assert share_of("inverted", [np.rot90(film) for film in real_films]) == pytest.approx(1 / 40, abs=0.01)


def test_few_real_frontal_films_are_called_lateral(real_films):
    assert share_of("lateral", real_films) < 0.016


def test_the_limits_leave_the_room_that_their_comments_say(real_films):
    samples, films = [quality._sample(film) for film in real_films], film_insides(real_films)
    spans = [high - low for low, high in (quality._grey_range(sample, 1, 99) for sample in samples)]
    assert min(spans) > 100
    assert max(np.mean((film <= quality.CLIPPED_GREY) | (film >= 255 - quality.CLIPPED_GREY)) for film in films) < 0.25
    assert min(film.size / sample.size for film, sample in zip(films, samples, strict=True)) > 0.5
    scores = sorted(map(upright_score, films))
    assert scores[0] > -0.1
    assert scores[1] > 0
    assert np.mean(np.array(scores) > 0.2) > 0.99


def test_the_frontal_chest_is_the_mean_of_the_real_films(real_films):
    mean = np.mean([quality._cells(film) for film in film_insides(real_films)], axis=0)
    assert np.array_equal(np.round(mean, -1), quality.FRONTAL_CHEST)


def test_films_that_were_not_averaged_into_the_frontal_chest_score_alike(real_films, monkeypatch):
    films = film_insides(real_films)
    chest = np.mean([quality._cells(film) for film in films[: len(films) // 2]], axis=0)
    monkeypatch.setattr(quality, "CHEST_CONTRAST", chest - chest.mean())
    others = [upright_score(255 - film) for film in films[len(films) // 2 :]]
    assert np.mean(np.array(others) < quality.MIN_UPRIGHT) > 0.98


def test_the_checks_cost_far_less_than_decoding():
    image = cv2.resize(frontal(), (1024, 1024))
    times_s = []
    for _ in range(50):
        start = time.perf_counter()
        find_fault(image, ALL)
        times_s.append(time.perf_counter() - start)
    assert min(times_s) < 0.001


@given(st_np.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_percentiles_become_the_ends_of_the_range(image):
    low, high = (int(np.percentile(image, share, method="inverted_cdf")) for share in (0.5, 99.5))
    adjusted = adjust_intensity(image, "percentile")
    if low == high:
        assert np.array_equal(adjusted, image)
        return
    wanted = np.clip((image.astype(float) - low) * 255 / (high - low), 0, 255)
    assert np.abs(adjusted - wanted).max() <= 0.5 + 1e-9
    assert (adjusted.min(), adjusted.max()) == (0, 255)


@pytest.mark.parametrize("method", ["none", "percentile", "clahe"])
@given(image=GREY)
def test_shape_and_type_stay_and_grey_in_three_channels_is_adjusted_as_grey(method, image):
    adjusted = adjust_intensity(image, method)
    assert (adjusted.shape, adjusted.dtype) == (image.shape, np.uint8)
    colour = adjust_intensity(cv2.merge([image] * 3), method)
    assert np.array_equal(colour, cv2.merge([adjusted] * 3))


def test_of_colour_only_the_luminance_is_adjusted():
    brick = np.tile(np.array([140, 80, 60], np.uint8), (16, 16, 1))
    brick[:8] += 30
    before, after = (
        cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb).astype(int) for image in (brick, adjust_intensity(brick, "clahe"))
    )
    assert np.abs(after[..., 0] - before[..., 0]).max() > 10
    assert np.abs(after[..., 1:] - before[..., 1:]).max() <= 1


def test_clahe_raises_faint_contrast_beside_strong_where_percentiles_cannot():
    image = np.full((256, 256), 230, np.uint8)
    image[:, :128] = np.tile(np.arange(20, 52), (256, 4))
    image[:8, 128:] = 10
    contrast = {method: np.ptp(adjust_intensity(image, method)[64:192, 16:112]) for method in ("percentile", "clahe")}
    assert contrast["percentile"] < 40
    assert 70 < contrast["clahe"] < 110


def test_no_method_changes_nothing():
    image = frontal()
    assert adjust_intensity(image, "none") is image


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="intensity is 'gamma', expected none"):
        adjust_intensity(frontal(), "gamma")
