"""Films are turned as their files say, in every kind of file."""

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import TiffImagePlugin
from pydicom import uid

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.dicom.decode import decode_dicom
from etl.contract.images.orientation import patient_orientation
from tests.etl.dicom_files import build, shown, written
from tests.etl.image_files import STORED, chunk, encoded, exif, png_of, tiff_of, xmp

FILM = np.random.default_rng(0).integers(0, 256, (3, 5), dtype=np.uint8)


# The ways to write an attribute or an element of XML.
XMP_FORMS = {
    "XMP": 'tiff:Orientation="{}"/>',
    "XMP, single quotes": "tiff:Orientation='{}'/>",
    "XMP, blanks": "tiff:Orientation = '{}' />",
    "XMP, element": "><tiff:Orientation>{}</tiff:Orientation></rdf:Description>",
    "XMP, element in lines": "><tiff:Orientation>\n {}\n</tiff:Orientation></rdf:Description>",
}


def profile(name: str, content: bytes) -> bytes:
    """EXIF or XMP as ImageMagick writes it into the text of a PNG."""
    digits = content.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return f"Raw profile type {name}\0\n{name}\n{len(content):8}\n{lines}\n".encode()


def compressed(text: bytes) -> bytes:
    """The content of a zTXt chunk."""
    name, said = text.split(b"\0", 1)
    return name + b"\0\0" + zlib.compress(said)


def twelve(film: np.ndarray) -> np.ndarray:
    """8 bits widened to 12."""
    return film.astype(np.uint16) * 16 + film // 16


def xmp_tag(way: int, form: str = XMP_FORMS["XMP"]) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags of a TIFF whose orientation is in its XMP alone."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[700] = 1
    tags[700] = xmp(way, form)
    return tags


FILES = {
    "PNG, before the pixels": lambda film, way: png_of(film, before=chunk(b"eXIf", exif(way))),
    "PNG, after the pixels": lambda film, way: png_of(film, after=chunk(b"eXIf", exif(way))),
    "PNG, text": lambda film, way: png_of(film, before=chunk(b"tEXt", profile("exif", exif(way, b"Exif\0\0")))),
    "PNG, APP1": lambda film, way: png_of(film, before=chunk(b"tEXt", profile("APP1", exif(way, b"Exif\0\0")))),
    "PNG, APP1, compressed": lambda film, way: png_of(
        film, after=chunk(b"zTXt", compressed(profile("APP1", exif(way, b"Exif\0\0"))))
    ),
    "PNG, APP1 with XMP": lambda film, way: png_of(
        film, after=chunk(b"tEXt", profile("APP1", b"http://ns.adobe.com/xap/1.0/\0" + xmp(way)))
    ),
    "PNG, text with XMP": lambda film, way: png_of(film, after=chunk(b"tEXt", profile("xmp", xmp(way)))),
    "PNG, 16 bits": lambda film, way: png_of(film.astype(np.uint16) * 257, before=chunk(b"eXIf", exif(way))),
    "PNG, RGB": lambda film, way: png_of(np.dstack([film] * 3), before=chunk(b"eXIf", exif(way))),
    "TIFF": lambda film, way: tiff_of(film, t274=way),
    "TIFF, RGB": lambda film, way: tiff_of(np.dstack([film] * 3), t274=way),
    "TIFF, RGB, 16 bits": lambda film, way: tiff_of(np.dstack([film.astype(np.uint16) * 257] * 3), t274=way),
    "TIFF, 16 bits": lambda film, way: tiff_of(film.astype(np.uint16) * 257, t274=way),
    "TIFF, 12 bits": lambda film, way: tiff_of(twelve(film), bits=12, t274=way),
    "TIFF, 12 bits in words": lambda film, way: tiff_of(twelve(film), bits=12, words=True, t274=way),
    "TIFF, LZW": lambda film, way: encoded(film, "TIFF", compression="tiff_lzw", tiffinfo={274: way}),
    "WEBP": lambda film, way: encoded(film, "WEBP", lossless=True, exif=exif(way)),
}
for name, form in XMP_FORMS.items():
    FILES |= {
        f"PNG, {name}": lambda film, way, form=form: png_of(
            film, after=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(way, form))
        ),
        f"TIFF, {name}": lambda film, way, form=form: encoded(film, "TIFF", tiffinfo=xmp_tag(way, form)),
        f"TIFF, 16 bits, {name}": lambda film, way, form=form: encoded(
            film.astype(np.uint16) * 257, "TIFF", tiffinfo=xmp_tag(way, form)
        ),
        f"WEBP, {name}": lambda film, way, form=form: encoded(film, "WEBP", lossless=True, xmp=xmp(way, form)),
    }


@pytest.mark.parametrize("way", STORED)
@pytest.mark.parametrize("kind", FILES)
def test_a_film_is_turned_as_its_file_says(kind, way):
    content = FILES[kind](np.ascontiguousarray(STORED[way](FILM)), way)
    assert np.array_equal(decode_grey(content), FILM)
    assert np.array_equal(decode_colour(content), np.dstack([FILM] * 3))


@pytest.mark.parametrize("way", STORED)
@pytest.mark.parametrize("note", ["exif", "xmp"])
def test_a_jpeg_is_turned_as_it_says(note, way):
    film = np.kron(FILM, np.ones((8, 8), np.uint8))
    said = exif(way, b"Exif\0\0") if note == "exif" else xmp(way)
    content = encoded(np.ascontiguousarray(STORED[way](film)), "JPEG", quality=95, **{note: said})
    assert decode_grey(content).shape == film.shape
    assert np.abs(decode_grey(content).astype(int) - film).max() < 8


@pytest.mark.parametrize("name", XMP_FORMS)
@pytest.mark.parametrize("film", [FILM, FILM.astype(np.uint16) * 257])
def test_the_tag_of_a_tiff_counts_before_its_xmp(film, name):
    for tag in (1, 6):
        tags = xmp_tag(8, XMP_FORMS[name])
        tags[274] = tag
        content = encoded(np.ascontiguousarray(STORED[tag](film)), "TIFF", tiffinfo=tags)
        assert np.array_equal(decode_grey(content), FILM)


@pytest.mark.parametrize("way", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_leaves_the_film_as_it_is(way):
    for kind in ("PNG, before the pixels", "TIFF", "TIFF, 16 bits", "TIFF, 12 bits in words", "WEBP"):
        assert np.array_equal(decode_grey(FILES[kind](FILM, way)), FILM)


@given(st.binary(max_size=60))
def test_exif_that_cannot_be_read_leaves_the_film_as_it_is(junk):
    with_orientation = exif(1)
    for damaged in (junk, with_orientation[: len(junk)], with_orientation[:-4] + junk):
        assert decode_grey(png_of(FILM, before=chunk(b"eXIf", damaged))).size == FILM.size
        assert decode_grey(encoded(FILM, "WEBP", lossless=True, exif=damaged)).size == FILM.size
        assert decode_grey(encoded(FILM, "JPEG", exif=b"Exif\0\0" + damaged)).size == FILM.size
        assert decode_grey(png_of(FILM, before=chunk(b"zTXt", b"Raw profile type exif\0" + damaged))).size == FILM.size


def place(direction: str, towards: str, away: str) -> int:
    """1 if the direction goes towards, -1 if away, 0 if neither."""
    return {towards: 1, away: -1}.get(direction[0], 0)


def laid_down(rows: str, columns: str, towards: str, away: str) -> np.ndarray:
    """A film whose rows and columns run in these directions: brighter by 10 towards one side, by 1 to the feet."""
    y, x = np.mgrid[0:4, 0:6]
    side = x * place(rows, towards, away) + y * place(columns, towards, away)
    feet = x * place(rows, "F", "H") + y * place(columns, "F", "H")
    return (100 + 10 * side + feet).astype(np.uint8)


FRONTAL = [pair for a, b in itertools.product("LR", "HF") for pair in ((a, b), (b, a))]


@pytest.mark.parametrize(("rows", "columns"), FRONTAL)
def test_a_frontal_dicom_is_turned_until_rows_run_to_the_left_and_columns_to_the_feet(rows, columns):
    stored = laid_down(rows, columns, "L", "R")
    # The whole range of greys, so that the film shows its own values.
    window = {"WindowCenter": 128, "WindowWidth": 256}
    film = np.array(shown(stored, PatientOrientation=[rows, columns], **window))
    assert (np.diff(film, axis=1) == 10).all() and (np.diff(film, axis=0) == 1).all()
    colour = decode_dicom(
        written(build(np.dstack([stored] * 3), photometric="RGB", PatientOrientation=[rows, columns])), colour=True
    )
    assert np.array_equal(colour, np.dstack([film] * 3))


LATERAL = [pair for a, b in itertools.product("AP", "HF") for pair in ((a, b), (b, a))]


@pytest.mark.parametrize(("rows", "columns"), LATERAL)
def test_a_lateral_dicom_is_turned_until_columns_run_to_the_feet_and_keeps_the_side_it_faces(rows, columns):
    stored = laid_down(rows, columns, "P", "A")
    film = np.array(
        shown(stored, PatientOrientation=[rows, columns], ViewPosition="LL", WindowCenter=128, WindowWidth=256)
    )
    assert (np.diff(film, axis=0) == 1).all()
    if rows in "AP":
        assert (np.diff(film, axis=1) == 10 * place(rows, "P", "A")).all()
    else:
        # It lies on its side: a quarter of a turn, no mirror.
        assert any(np.array_equal(film, np.rot90(stored, quarter)) for quarter in (1, 3))


@pytest.mark.parametrize(("directions", "same_as"), [(["R", "FA"], "RF"), (["RP", "HL"], "RH")])
def test_the_first_letter_of_a_direction_decides(directions, same_as):
    assert shown(FILM, PatientOrientation=directions) == shown(FILM, PatientOrientation=list(same_as))
    assert shown(FILM, PatientOrientation=directions) != shown(FILM)
    assert patient_orientation([f" {one.lower()} " for one in directions]) == patient_orientation(list(same_as))


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientOrientation": directions}
        for directions in ("", "R", ["R", ""], ["R", "L"], ["H", "F"], ["H", "H"], ["R", "A"], ["X", "H"], list("RHL"))
    ]
    + [{"PatientOrientation": ["RT", "H"], "AnatomicalOrientationType": "QUADRUPED"}],
)
def test_directions_that_are_missing_or_contradict_each_other_leave_the_film_as_it_is(tags):
    assert shown(FILM, **tags) == shown(FILM)


def test_a_compressed_dicom_is_turned_too():
    dataset = build(FILM, PatientOrientation=["R", "H"])
    dataset.compress(uid.RLELossless, encoding_plugin="pydicom")
    assert decode_dicom(written(dataset)).tolist() == shown(FILM[::-1, ::-1].copy())
