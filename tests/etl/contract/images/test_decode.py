import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from PIL import Image

from etl.contract.images.decode import decode_colour, decode_grey
from etl.contract.images.pixels import MAX_SIDE_PX, BadImage, to_square
from tests.conftest import png
from tests.etl.image_files import SIGNATURE, chunk, encoded, png_of, raw_png

GREY = st_np.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(GREY)
def test_grey_is_decoded_exactly(image):
    assert np.array_equal(decode_grey(png(image)), image)


@given(GREY)
def test_tiff_is_decoded_exactly(image):
    assert np.array_equal(decode_grey(encoded(image, "TIFF", compression="tiff_lzw")), image)


@given(st_np.arrays(np.uint16, (4, 5)))
def test_tiff_of_16_bits_is_scaled_over_the_full_range(image):
    image[0, :3] = 0, 32768, 65535
    assert np.array_equal(decode_grey(encoded(image, "TIFF")), np.round(image / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_becomes_grey(mode):
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    grey = decode_grey(encoded(Image.fromarray(ramp).convert(mode), "JPEG", quality=95))
    assert grey.shape == ramp.shape
    assert np.abs(grey.astype(int) - ramp).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_every_cut_of_a_jpeg_or_tiff_is_refused_or_whole(kind):
    image = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)
    content = encoded(image, kind)
    whole = decode_grey(content)
    for end in range(1, len(content), 7):
        try:
            decoded = decode_grey(content[:end])
        except BadImage:
            continue
        assert np.array_equal(decoded, whole), f"{end} of {len(content)} bytes"


def test_a_huge_tiff_is_refused_before_it_is_decoded():
    content = encoded(np.zeros((1, MAX_SIDE_PX + 1), np.uint8), "TIFF")
    with pytest.raises(BadImage, match="too large"):
        decode_grey(content)


@pytest.mark.parametrize("side_px", [MAX_SIDE_PX + 1, 20_000])
def test_a_jpeg_whose_header_says_it_is_huge_is_refused(side_px):
    content = encoded(np.zeros((8, 8), np.uint8), "JPEG")
    size = content.index(b"\xff\xc0") + 5
    with pytest.raises(BadImage, match="too large.* a side"):
        decode_grey(content[:size] + struct.pack(">HH", side_px, side_px) + content[size + 4 :])


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in ("TIFF", "PNG") for mode in ("L", "RGB", "I;16")],
)
def test_a_file_of_several_frames_is_refused(kind, mode):
    frames = [Image.new(mode, (16, 16), grey) for grey in ("black", "white")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    for decode in (decode_grey, decode_colour):
        with pytest.raises(BadImage, match="several frames, expected one"):
            decode(content)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_main_picture_of_a_phones_jpeg_is_read(mode):
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    main, extra = Image.fromarray(noise).convert(mode), Image.new(mode, (16, 16), "white")
    content = encoded(main, "MPO", save_all=True, append_images=[extra])
    assert Image.open(io.BytesIO(content)).n_frames == 2
    alone = encoded(main, "JPEG")
    assert np.array_equal(decode_grey(content), decode_grey(alone))
    assert np.array_equal(decode_colour(content), decode_colour(alone))
    with pytest.raises(BadImage, match="JPEG"):
        decode_grey(content[: len(alone) // 2])


@given(GREY)
def test_rgba_with_equal_channels_is_the_same_grey(image):
    opaque = np.full_like(image, 255)
    assert np.array_equal(decode_grey(png(np.dstack([image, image, image, opaque]))), image)


def test_sixteen_bits_are_scaled_over_their_full_range():
    image = np.array([[0, 257, 65535, 32768, 128, 129]], dtype=np.uint16)
    for kind in (image, np.dstack([image] * 3)):
        assert decode_grey(png(kind)).tolist() == [[0, 1, 255, 128, 0, 1]]


def test_a_palette_becomes_luminance():
    palette = chunk(b"PLTE", b"\xff\x00\x00\x07\x07\x07")
    assert decode_grey(raw_png(2, 1, 8, 3, b"\x00\x00\x01", before=palette)).tolist() == [[76, 7]]


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("depth", "row"), [(2, b"\x18"), (4, b"\x01\x20"), (8, b"\0\1\2")])
def test_a_palette_must_have_the_colours_that_are_used(depth, row, interlaced):
    def content(colours):
        palette = chunk(b"PLTE", bytes([9] * 3 * colours))
        stream = (
            b"\0" + row
            if not interlaced
            else b"".join(
                b"\0" + part
                for part in {2: (b"\0", b"\x80", b"\x40"), 4: (b"\0", b"\x20", b"\x10"), 8: (b"\0", b"\2", b"\1")}[
                    depth
                ]
            )
        )
        return raw_png(3, 1, depth, 3, stream, before=palette, interlaced=interlaced)

    assert decode_grey(content(3)).tolist() == [[9, 9, 9]]
    with pytest.raises(BadImage, match="its palette has 2 colours, but a pixel has number 2, counted from 0"):
        decode_grey(content(2))


# Bits of a pixel for every combination of colour type and bit depth (PNG 1.2, section 4.1.1).
LEGAL = {(0, 1): 1, (0, 2): 2, (0, 4): 4, (0, 8): 8, (0, 16): 16, (2, 8): 24, (2, 16): 48, (3, 1): 1, (3, 2): 2}
LEGAL |= {(3, 4): 4, (3, 8): 8, (4, 8): 16, (4, 16): 32, (6, 8): 32, (6, 16): 64}


@pytest.mark.parametrize(("kind", "bits"), LEGAL.items())
@given(width=st.integers(1, 20), height=st.integers(1, 20), interlaced=st.integers(0, 1), cut=st.integers(1, 50))
def test_every_legal_png_is_accepted_without_surplus_pixels_and_no_lack_of_them(
    kind, bits, width, height, interlaced, cut
):
    colour, depth = kind
    # Adam7 as nested slices of the image, independently of the arithmetic under test.
    pixel = np.empty((height, width))
    passes = [pixel]
    if interlaced:
        passes = [pixel[::8, ::8], pixel[::8, 4::8], pixel[4::8, ::4], pixel[::4, 2::4], pixel[2::4, ::2]]
        passes += [pixel[::2, 1::2], pixel[1::2]]
    stream = b"".join(bytes(1 + -(-part.shape[1] * bits // 8)) * len(part) for part in passes if part.size)
    palette = chunk(b"PLTE", b"\x05\x05\x05") if colour == 3 else b""
    made = {"interlaced": interlaced, "before": palette, "cut": cut}
    image = decode_grey(raw_png(width, height, depth, colour, stream, **made))
    assert np.array_equal(image, np.full((height, width), 5 if colour == 3 else 0))
    with pytest.raises(BadImage, match="too few"):
        decode_grey(raw_png(width, height, depth, colour, stream[:-1], **made))
    for surplus in (b"\x00", stream):
        image = decode_grey(raw_png(width, height, depth, colour, stream + surplus, **made))
        assert np.array_equal(image, np.full((height, width), 5 if colour == 3 else 0))


@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_bomb_is_not_inflated(interlaced, capfd):
    bomb = raw_png(1, 1, 8, 2, b"\0\7\7\7" + bytes(100_000_000), interlaced=interlaced)
    tracemalloc.start()
    assert decode_grey(bomb).tolist() == [[7]]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert capfd.readouterr() == ("", "")


def with_header(*fields: int) -> bytes:
    """A sound PNG of 2x2 grey pixels under another header: depth, colour, compression, filter, interlace."""
    content = png_of(np.zeros((2, 2), np.uint8))
    return content[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, *fields)) + content[33:]


def test_the_longest_side_that_is_read_gives_a_square():
    image = decode_grey(png(np.full((1, MAX_SIDE_PX), 9, np.uint8)))
    assert to_square(image, 32).shape == (32, 32)


@pytest.mark.parametrize("channels", [1, 4])
@given(cut=st.integers(0, 10_000))
def test_no_truncated_file_is_accepted(channels, cut):
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, channels), dtype=np.uint8)
    whole = png(noise)
    with pytest.raises(BadImage):
        decode_grey(whole[: cut % (len(whole) - 12)])


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_changes_pixels_unnoticed(position, bit):
    image = np.random.default_rng(2).integers(0, 256, (24, 24), dtype=np.uint8)
    damaged = bytearray(png(image))
    damaged[position % len(damaged)] ^= 1 << bit
    try:
        decoded = decode_grey(bytes(damaged))
    except BadImage:
        return
    assert np.array_equal(decoded, image)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is text", "no PNG, JPEG, TIFF, WEBP, BMP or DICOM: starts with b'this is '"),
        (SIGNATURE, "truncated"),
        (raw_png(60_000, 60_000, 8, 0, b""), "too large: 60000x60000"),
        # Few pixels, but 4 TB as a square.
        (raw_png(2_000_000, 1, 8, 0, bytes(2_000_001)), "too large: 2000000x1"),
        (raw_png(1, 2_000_000, 8, 0, bytes(4_000_000)), "too large: 1x2000000"),
        (raw_png(0, 5, 8, 0, b""), "no pixels"),
        (raw_png(1, 1, 200, 0, bytes(26)), "no PNG has bit depth 200"),
        (raw_png(1, 1, 8, 5, bytes(4)), "no PNG has .*colour type 5"),
        (raw_png(2, 2, 8, 2, bytes(14), interlaced=2), "unknown interlace method 2, expected 0 or 1"),
        (with_header(8, 0, 0, 0, 2), "unknown interlace method 2"),
        (with_header(8, 0, 1, 0, 0), "unknown compression method 1, expected 0"),
        (with_header(8, 0, 0, 1, 0), "unknown filter method 1"),
        (with_header(4, 2, 0, 0, 0), "no PNG has bit depth 4 and colour type 2"),
        (with_header(16, 3, 0, 0, 0), "no PNG has bit depth 16 and colour type 3"),
        (with_header(2, 4, 0, 0, 0), "no PNG has bit depth 2 and colour type 4"),
        (with_header(1, 6, 0, 0, 0), "no PNG has bit depth 1 and colour type 6"),
        (raw_png(2, 2, 8, 3, bytes(6)), "palette without colours"),
        (raw_png(2, 2, 8, 3, bytes(6), after=chunk(b"PLTE", bytes(3))), "palette without colours"),
        (raw_png(2, 2, 8, 3, bytes(6), before=chunk(b"PLTE", bytes(4))), "a palette of 4 bytes"),
        (raw_png(2, 2, 8, 3, bytes(6), before=chunk(b"PLTE", bytes(771))), "a palette of 771 bytes, .* at most 256"),
        (SIGNATURE + chunk(b"CgBI", b"P\0 \2") + png_of(np.zeros((2, 2), np.uint8))[8:], "Apple's own kind of PNG"),
    ],
)
def test_a_file_that_is_no_image_gets_a_reason(content, reason, capfd):
    with pytest.raises(BadImage, match=reason):
        decode_grey(content)
    assert capfd.readouterr() == ("", "")


SHAPES = {"grey": (6, 7), "grey and alpha": (6, 7, 2), "RGB": (6, 7, 3), "RGBA": (6, 7, 4)}
HARMLESS = [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"gAMA", b"iCCP", b"tRNS", b"vpAg"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_damaged_chunk_that_is_not_followed_does_no_harm(shape, kind, capfd):
    film = np.random.default_rng(0).integers(0, np.iinfo(kind).max, SHAPES[shape]).astype(kind)
    whole = decode_grey(png_of(film))
    for name in HARMLESS:
        damaged = chunk(name, b"Comment\0text", damaged=True)
        for content in (png_of(film, before=damaged), png_of(film, after=damaged)):
            assert np.array_equal(decode_grey(content), whole), name
            assert np.array_equal(decode_colour(content), decode_colour(png_of(film))), name
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_bytes", [0, 4, 6, 900])
def test_a_palette_beside_colours_is_no_more_than_a_proposal(shape, num_bytes, capfd):
    film = np.random.default_rng(0).integers(0, 255, SHAPES[shape]).astype(np.uint8)
    content = png_of(film, before=chunk(b"PLTE", bytes(num_bytes)))
    assert np.array_equal(decode_grey(content), decode_grey(png_of(film)))
    assert np.array_equal(decode_colour(content), decode_colour(png_of(film)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("shape", "name"), [(shape, name) for shape in SHAPES for name in ("sBIT", "eXIf", "IDAT")] + [("RGB", "PLTE")]
)
def test_a_damaged_chunk_that_is_followed_is_named(shape, name):
    film = np.full(SHAPES[shape], 9, np.uint8)
    damaged = chunk(name.encode(), b"\x04" * film[0, 0].size, damaged=True)
    for content in (png_of(film, before=damaged), png_of(film, after=damaged)):
        with pytest.raises(BadImage, match=f"wrong checksum of a b'{name}' chunk"):
            decode_grey(content)


def test_a_colour_profile_prints_nothing(capfd):
    rgba = png(np.zeros((4, 4, 4), np.uint8))
    profile = b"ICC Profile\x00\x00" + zlib.compress(b"x" * 200)
    decode_grey(rgba[:33] + chunk(b"iCCP", profile) + rgba[33:])
    assert capfd.readouterr().err == ""


PIXELS = st.one_of(GREY, st_np.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))


@pytest.mark.parametrize("square", ["pad", "stretch"])
@given(image=PIXELS, size_px=st.integers(1, 50))
def test_squares_have_their_size_and_stay_in_range(square, image, size_px):
    made = to_square(image, size_px, square)
    assert made.shape == (size_px, size_px, *image.shape[2:])
    assert made.dtype == np.uint8
    assert made.max() <= image.max()
    assert square == "pad" or made.min() >= image.min()


@pytest.mark.parametrize("square", ["pad", "stretch"])
@given(image=PIXELS, size_px=st.integers(1, 50))
def test_the_channels_of_colour_become_the_squares_of_their_grey(square, image, size_px):
    alone = [to_square(channel, size_px, square) for channel in cv2.split(image)]
    assert np.array_equal(cv2.merge(alone), cv2.merge(cv2.split(to_square(image, size_px, square))))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 255))
def test_a_constant_image_is_stretched_to_a_constant_square(height, width, size_px, grey):
    assert np.unique(to_square(np.full((height, width), grey, np.uint8), size_px, "stretch")).tolist() == [grey]


@given(st.integers(1, 40), st.integers(1, 40))
def test_padding_is_black_and_equal_on_both_sides_or_one_pixel_more_below_and_right(height, width):
    white = to_square(np.full((height, width), 255, np.uint8), max(height, width))
    for axis, length in ((1, height), (0, width)):
        inside = np.flatnonzero(white.any(axis=axis))
        before, after = inside[0], len(white) - 1 - inside[-1]
        assert len(inside) == length
        assert after - before in (0, 1)
    assert np.count_nonzero(white) == height * width


@given(st_np.arrays(np.uint8, st.integers(1, 40).map(lambda side: (side, side))), st.integers(1, 50))
def test_a_square_image_is_the_same_padded_or_stretched(image, size_px):
    assert np.array_equal(to_square(image, size_px, "pad"), to_square(image, size_px, "stretch"))


def test_a_side_that_is_too_long_is_averaged_though_the_other_is_enlarged():
    stripes = np.tile(np.array([0, 200], np.uint8), (4, 16))
    assert to_square(stripes, 8, "stretch").tolist() == [[100] * 8] * 8
    assert to_square(stripes.T, 8, "stretch").tolist() == [[100] * 8] * 8


def test_another_kind_of_square_is_named():
    with pytest.raises(ValueError, match="square is 'crop', expected pad or stretch"):
        to_square(np.zeros((4, 4), np.uint8), 4, "crop")


def test_a_tall_image_is_padded_not_stretched():
    tall = np.full((40, 20), 200, np.uint8)
    square = to_square(tall, 40)
    assert np.array_equal(square[:, 10:30], tall)
    assert square[:, :10].max() == square[:, 30:].max() == 0


def test_shrinking_averages_areas():
    image = np.kron(np.array([[10, 20], [30, 40]], np.uint8), np.ones((8, 8), np.uint8))
    assert to_square(image, 2).tolist() == [[10, 20], [30, 40]]
    checkers = np.indices((16, 16)).sum(axis=0) % 2 * 200
    assert to_square(checkers.astype(np.uint8), 8).tolist() == [[100] * 8] * 8
    assert cv2.getNumThreads() == 1


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 60), st.sampled_from(["pad", "stretch"]))
def test_a_quick_square_is_nearly_the_average(height, width, size_px, square):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (height, width), dtype=np.uint8), (0, 0), 3).reshape(height, width)
    quick = to_square(image, size_px, square, quick=True)
    expected = to_square(image, size_px, square)
    assert quick.shape == (size_px, size_px) and quick.dtype == np.uint8
    if min(height, width) >= 2 * size_px:
        # Only pixels at the edge of the padding differ by more: it falls on another part of a pixel.
        assert np.median(np.abs(quick.astype(int) - expected)) <= 3


def test_a_quick_square_of_a_multiple_is_the_average():
    image = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    means = image.reshape(24, 4, 24, 4).mean(axis=(1, 3))
    assert np.abs(to_square(image, 24, quick=True) - means).max() <= 1
    assert np.unique(to_square(np.full((90, 70), 120, np.uint8), 32, "stretch", quick=True)).tolist() == [120]
