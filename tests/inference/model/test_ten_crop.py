import numpy as np

from inference.model.graphs import Answer
from inference.model.ten_crop import ten_crops, with_ten_crops

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)


def test_crops_are_corners_centre_and_their_mirror_images():
    crops = ten_crops(PIXELS).reshape(3, 10, 64, 64)
    np.testing.assert_array_equal(crops[:, 1::2], crops[:, ::2, :, ::-1])
    # Grey values rise from 0 to 252.
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (1, 64, 1))
    left, right, *_ = ten_crops(ramp)[::2]
    assert left.mean() < 126 < right.mean()
    flat = np.full((1, 64, 64), 77, np.uint8)
    assert (ten_crops(flat) == 77).all()


def test_probabilities_are_means_and_maps_and_distances_are_of_the_whole_image():
    def brightness(pixels: np.ndarray) -> Answer:
        means = pixels.mean(axis=(1, 2), keepdims=True) / 255
        return Answer(means[:, 0], means[..., None], means[:, 0, 0])

    answer = with_ten_crops(brightness)(PIXELS)
    expected = (ten_crops(PIXELS).reshape(3, -1).mean(axis=1) / 255)[:, None]
    np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-6)
    np.testing.assert_array_equal(answer.distances, brightness(PIXELS).distances)
    np.testing.assert_array_equal(answer.maps, brightness(PIXELS).maps)
