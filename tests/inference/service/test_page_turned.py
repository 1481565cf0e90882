"""The page shows a film as its file says, under a heat map that lies where the film is bright."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.etl.dicom_files import build, written
from tests.etl.image_files import STORED, chunk, encoded, exif, png_of, xmp
from tests.inference.service.page import drop


def bright_corner() -> np.ndarray:
    """(160, 120) uint8, dark, but for the top left; turned or mirrored in any way it is another film."""
    film = np.random.default_rng(0).normal(100, 12, (160, 120))
    film[:60, :50] += 120
    return film.clip(0, 255).astype(np.uint8)


FILM = bright_corner()
TWELVE = FILM.astype(np.uint16) * 16


def stored(way: int) -> np.ndarray:
    return np.ascontiguousarray(STORED[way](FILM))


FILES = {
    "JPEG": lambda way: encoded(stored(way), "JPEG", quality=95, exif=exif(way, b"Exif\0\0")),
    "JPEG, XMP": lambda way: encoded(stored(way), "JPEG", quality=95, xmp=xmp(way)),
    "PNG": lambda way: png_of(stored(way), before=chunk(b"eXIf", exif(way))),
    "PNG, at the end": lambda way: png_of(stored(way), after=chunk(b"eXIf", exif(way))),
    "WEBP": lambda way: encoded(stored(way), "WEBP", lossless=True, exif=exif(way)),
    "TIFF": lambda way: encoded(stored(way), "TIFF", tiffinfo={274: way}),
    "DICOM": lambda way: written(build(stored(way), PatientOrientation=[*{3: "RH", 6: "FR"}[way]])),
}
# Files that Chromium too shows as they say; of the others the page shows what the model sees.
AS_THEY_SAY = ("JPEG", "PNG")


@pytest.fixture
def page(open_page, page_service) -> Page:
    return open_page(page_service)


def seen(page: Page) -> np.ndarray:
    """(16, 12, 3) RGB: what the page shows of the film."""
    stage = Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")
    square = cv2.resize(np.asarray(stage), (160, 160), interpolation=cv2.INTER_AREA)
    return cv2.resize(square[:, 20:140], (12, 16), interpolation=cv2.INTER_AREA).astype(int)


def wait_for_film(page: Page, is_original: bool) -> None:
    expect(page.locator("#film")).to_be_visible()
    if is_original:
        expect(page.locator("#model-view")).to_be_visible()
    else:
        page.wait_for_timeout(300)
        expect(page.locator("#model-view")).to_be_hidden()


@pytest.mark.parametrize("kind", FILES)
def test_a_turned_film_is_shown_upright_under_its_heat_map(page, kind):
    for way in (3, 6):
        drop(page, FILES[kind](way))
        wait_for_film(page, kind in AS_THEY_SAY)
        page.get_by_role("radio", name="Bright").check()
        page.get_by_role("checkbox", name="Heat map").set_checked(True)
        page.get_by_role("slider", name="Opacity of the heat map").press("End")
        with_heat = seen(page)
        page.get_by_role("checkbox", name="Heat map").set_checked(False)
        # The film is grey, the heat map is not.
        for shown in (seen(page).mean(axis=2) > 160, np.ptp(with_heat, axis=2) > 60):
            assert shown[1:4, 2:4].all(), way
            assert not shown[9:15].any() and not shown[:, 8:].any(), way


def test_a_film_whose_bits_the_browser_does_not_scale_is_shown_as_the_model_sees_it(page):
    drop(page, png_of(TWELVE, before=chunk(b"sBIT", b"\x0c")))
    wait_for_film(page, is_original=False)
    page.get_by_role("checkbox", name="Heat map").set_checked(False)
    assert seen(page)[1:5, 1:4].min() > 160
