import numpy as np
import pytest

from conf.errors import InputError
from conf.writing import write_json
from inference.film.known_boxes import FILE, key_of, load_boxes


def test_boxes_are_found_again_by_the_pixels(tmp_path):
    film = np.arange(16, dtype=np.uint8).reshape(4, 4)
    write_json(tmp_path / FILE, {key_of(film): [[1, 0.1, 0.2, 0.3, 0.4]]})
    boxes = load_boxes(tmp_path)
    assert boxes[key_of(np.asfortranarray(film))] == [[1, 0.1, 0.2, 0.3, 0.4]]
    assert key_of(film + 1) not in boxes


def test_a_model_without_the_file_knows_none_and_a_damaged_one_is_told(tmp_path):
    assert load_boxes(tmp_path) == {}
    (tmp_path / FILE).write_text("{")
    with pytest.raises(InputError, match=r"boxes.json cannot be read .*register.py"):
        load_boxes(tmp_path)
