import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.words import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ["patient"], "0 patients"),
        (1, ["patient"], "1 patient"),
        (2000, ["patient"], "2,000 patients"),
        (1, ["class", "classes"], "1 class"),
        (3, ["class", "classes"], "3 classes"),
        (1, ["image is", "images are"], "1 image is"),
        (0, ["image is", "images are"], "0 images are"),
    ],
)
def test_one_thing_is_no_plural(number, words, said):
    assert counted(number, *words) == said


@given(st.integers(0, 10**9))
def test_only_one_is_one(number):
    assert counted(number, "row").endswith("row") == (number == 1)
