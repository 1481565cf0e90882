import json

import pytest

from conf.errors import InputError
from inference.model.properties import Properties
from tests.inference.film.test_answers import PROPERTIES


def test_they_come_back_from_json_as_they_were():
    assert Properties.parse(PROPERTIES.to_json(), "graph") == PROPERTIES


@pytest.mark.parametrize("text", ["null", "[]", "{", '{"findings": []}', PROPERTIES.to_json().replace("run_id", "run")])
def test_other_texts_are_input_errors(text):
    with pytest.raises(InputError, match="the graph does not say what its outputs mean .*register.py"):
        Properties.parse(text, "the graph")


def test_another_format_is_exported_again():
    older = json.loads(PROPERTIES.to_json()) | {"format": 1}
    # Which that one did not have.
    del older["quality"]
    with pytest.raises(InputError, match=r"has format 1, this program reads 2: run .*register.py"):
        Properties.parse(json.dumps(older), "the graph")
