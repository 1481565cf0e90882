import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from conf.settings import Etl, Quality
from etl.contract.images.lungs.crop import KEPT_WHOLE
from etl.contract.images.pixels import BadImage
from etl.phantoms.film import render
from etl.writing.shard_file import load_squares
from inference.film import films
from inference.film.answers import describe_findings
from inference.film.films import load_film
from tests.etl.dicom_files import build, written
from tests.etl.image_files import png_of
from tests.inference.toy_properties import PROPERTIES


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def textured(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (np.linspace(30, 200, width)[None] + rng.normal(0, 8, (height, width))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("square", ["pad", "stretch"])
@pytest.mark.parametrize("intensity", ["none", "percentile", "clahe"])
def test_serving_prepares_a_file_as_the_table_has_it(square, intensity, tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(png(textured(200, 160)))
    settings = Etl(
        sizes_px=[64],
        square=square,
        intensity=intensity,
        quality=Quality(0, False, False, False, False, False, False),
    )
    (expected,) = load_squares(path.read_bytes, settings, channels=1).squares
    film = load_film(path.read_bytes(), replace(PROPERTIES, square=square, intensity=intensity))
    np.testing.assert_array_equal(film.pixels, expected)
    assert (film.width_px, film.height_px) == (160, 200)


@pytest.mark.parametrize("channels", [1, 3])
def test_serving_crops_a_film_as_the_table_has_it(channels):
    film = render((0, 1, 0), False, False, (), 256)[0]
    content = png(np.dstack([film, film // 2, film]) if channels == 3 else film[:230])
    how = {"crop": "lungs", "crop_margin": 0.02, "intensity": "percentile"}
    (expected,), crop, *_ = load_squares(lambda: content, Etl(sizes_px=[64], quality=Quality(0), **how), channels)
    served = load_film(content, replace(PROPERTIES, channels=channels, **how), with_whole=True)
    np.testing.assert_array_equal(served.pixels, expected)
    assert served.crop == crop and crop.width < 256 and not served.doubts
    whole = load_film(content, replace(PROPERTIES, channels=channels, intensity="percentile"))
    np.testing.assert_array_equal(served.whole, whole.pixels)
    assert whole.crop is None and whole.whole is None


def test_an_answer_says_that_no_lungs_were_found():
    content = png(np.random.default_rng(0).integers(0, 256, (200, 160), dtype=np.uint8))
    film = load_film(content, replace(PROPERTIES, crop="lungs"), with_whole=True)
    assert film.crop is None and film.whole is None and film.doubts == (KEPT_WHOLE,)
    np.testing.assert_array_equal(film.pixels, load_film(content, PROPERTIES).pixels)
    found = describe_findings(PROPERTIES, np.zeros(3, np.float32), 0.0, doubts=film.doubts)
    assert found.to_dict()["warnings"] == [KEPT_WHOLE]


def test_serving_scales_few_bits_as_the_table_was_made(tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(png_of(textured(200, 160).astype(np.uint16) * 16))
    (expected,) = load_squares(path.read_bytes, Etl(sizes_px=[64], grey_bits=12), channels=1).squares
    film = load_film(path.read_bytes(), replace(PROPERTIES, grey_bits=12))
    np.testing.assert_array_equal(film.pixels, expected)
    assert film.fault is None and film.pixels.max() > 150
    (colour,) = load_squares(path.read_bytes, Etl(sizes_px=[64], grey_bits=12), channels=3).squares
    np.testing.assert_array_equal(colour, np.dstack([expected] * 3))
    for load in (
        lambda: load_squares(path.read_bytes, Etl(sizes_px=[64]), channels=1),
        lambda: load_film(path.read_bytes(), PROPERTIES),
    ):
        with pytest.raises(BadImage, match="12 bits were stored in 16"):
            load()


def test_the_checks_are_those_of_the_table_that_the_model_was_trained_on():
    small = png(textured(100, 100))
    assert load_film(small, PROPERTIES).fault.startswith("too small: 100x100 pixels")
    allowed = replace(PROPERTIES, quality=PROPERTIES.quality | {"min_side_px": 64})
    assert load_film(small, allowed).fault is None


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        ({}, None),
        ({"Modality": "CT"}, "modality CT: not in"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for processing"),
        ({"BodyPartExamined": "HAND"}, "body part HAND"),
        ({"BurnedInAnnotation": "YES"}, "burned-in annotation"),
    ],
)
def test_a_dicom_file_that_is_no_film_for_reading_has_the_fault_that_the_etl_gives_it(tags, fault):
    content = written(build(textured(200, 160).astype(np.uint16) * 16, BitsStored=12, **tags))
    found = load_film(content, PROPERTIES).fault
    assert found == fault or found.startswith(fault)
    wanted = replace(PROPERTIES, dicom={"modalities": ["CT"], "burned_in": True})
    if "Modality" in tags or "BurnedInAnnotation" in tags:
        assert load_film(content, wanted).fault is None


def test_what_the_etl_would_have_refused_is_said_and_not_refused():
    film = load_film(png(np.full((200, 200), 90, np.uint8)), PROPERTIES)
    assert film.fault.startswith("constant")
    assert film.pixels.shape == (64, 64)


@pytest.mark.parametrize("content", [b"", b"hello", png(textured(64, 64))[:-30]])
def test_no_image_is_a_bad_image(content):
    with pytest.raises(BadImage):
        load_film(content, PROPERTIES)


@pytest.mark.parametrize(("height", "width"), [(200, 160), (16, 8), (1, 1)])
def test_what_is_shown_has_the_films_own_proportions(height, width):
    film = load_film(png(textured(height, width)), PROPERTIES, shown_px=64)
    assert film.shown.dtype == np.uint8
    assert film.shown.shape == (64, round(64 * width / height))
    assert abs(film.shown.mean() - textured(height, width).mean()) < 3
    assert load_film(png(textured(height, width)), PROPERTIES).shown is None


def test_a_film_for_which_opencv_has_no_memory_is_a_lack_of_memory(monkeypatch):
    def refuse(image: np.ndarray, *_, **__) -> np.ndarray:
        # More than any machine has; no array of the test's own is made.
        return cv2.resize(image, (2**30, 2**30))

    monkeypatch.setattr(films, "to_square", refuse)
    with pytest.raises(MemoryError):
        load_film(png(np.full((64, 64), 100, np.uint8)), PROPERTIES)


class PanicException(BaseException):
    """As pyo3, through which Rust's libraries are called, names its own."""


NO_CV2_MEMORY = cv2.error("Insufficient memory")
NO_CV2_MEMORY.code = cv2.Error.StsNoMem


@pytest.mark.parametrize("error", [MemoryError(), NO_CV2_MEMORY, PanicException("allocation failed")])
def test_lack_of_memory_is_no_fault_of_the_film(monkeypatch, error):
    def exhausted(*_: object) -> None:
        raise error

    monkeypatch.setattr("etl.writing.shard_file.decode_grey", exhausted)
    with pytest.raises(BadImage, match="^cannot be read: not enough memory to decode it$"):
        load_squares(lambda: b"film", Etl(), channels=1)
