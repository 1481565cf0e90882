import cv2
import numpy as np

from etl.contract.images.lungs.crop import Crop
from inference.files.overlays import paint_finding, worth_painting
from inference.film.answers import describe_findings
from inference.film.films import Film
from tests.inference.toy_properties import PROPERTIES
from training.network.heat import BOX_RGB


def test_where_nothing_is_called_the_nearest_finding_is_painted():
    """The nearest by odds: 0.05 of 0.1 is nearer than 0.3 of 0.6, and none is near without a threshold."""
    nearest = describe_findings(PROPERTIES, np.array([0.01, 0.5, 0.9], np.float32), 9.0)
    assert worth_painting(nearest) == [1]
    assert worth_painting(describe_findings(PROPERTIES, np.array([0.29, 0.5, 0.9], np.float32), 9.0)) == [0]
    assert worth_painting(describe_findings(PROPERTIES, np.array([0.9, 0.9, 0.9], np.float32), 9.0)) == [0, 1]
    assert worth_painting(describe_findings(PROPERTIES, np.array([0.9, 0.9, 0.9], np.float32), 99.0)) == []


def test_the_picture_of_a_cropped_film_has_its_heat_and_boxes_where_they_lie():
    crop = Crop(100, 0, 100, 100, 200, 100)
    film = Film(np.zeros((64, 64), np.uint8), None, 200, 100, np.full((512, 1024), 100, np.uint8), crop=crop)
    maps = np.full((3, 8, 8), -9, np.float32)
    maps[0, 4, 4] = 9
    found = describe_findings(PROPERTIES, np.array([0.9, 0.1, 0.1], np.float32), 0.0).findings[0]
    content = paint_finding(film, maps, 0, found, PROPERTIES, "youden", [[0.75, 0.75, 0.125, 0.125]], "toy")
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:512]
    hot = np.ptp(picture.astype(int), axis=2) > 40
    rows, columns = np.nonzero(hot[:, :890])
    assert abs(columns.mean() / 1024 - (0.5 + 0.5 * 4.5 / 8)) < 0.02 and abs(rows.mean() / 512 - 4.5 / 8) < 0.02
    boxed = np.argwhere((picture == BOX_RGB[::-1]).all(axis=2))
    np.testing.assert_allclose(boxed.min(axis=0) / (512, 1024), (0.75, 0.875), atol=0.01)
