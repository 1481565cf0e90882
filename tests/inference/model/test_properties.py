import json

import pytest

from conf.errors import InputError
from inference.model.properties import Properties, preparation_of
from tests.inference.toy_properties import PROPERTIES


def test_properties_come_back_from_json_unchanged():
    assert Properties.parse(PROPERTIES.to_json(), "graph") == PROPERTIES


@pytest.mark.parametrize("text", ["null", "[]", "{", '{"findings": []}', PROPERTIES.to_json().replace("run_id", "run")])
def test_other_texts_are_input_errors(text):
    with pytest.raises(InputError, match="the graph does not say what its outputs mean .*register.py"):
        Properties.parse(text, "the graph")


def test_a_graph_of_an_older_release_leaves_the_bits_to_the_files():
    older = json.loads(PROPERTIES.to_json())
    del older["grey_bits"]
    assert Properties.parse(json.dumps(older), "graph") == PROPERTIES


def test_the_preparation_of_an_older_card_has_the_defaults():
    assert preparation_of({}) == {
        "square": "pad",
        "crop": "none",
        "crop_margin": 0.1,
        "intensity": "none",
        "grey_bits": 0,
        "lungs": "finder",
    }
    made = {"square": "stretch", "crop": "lungs", "crop_margin": 0.2, "intensity": "clahe", "grey_bits": 12}
    assert preparation_of(made | {"split": "source", "lungs": "/any"}, {"sha256": "f00"}) == made | {"lungs": "f00"}


def test_another_format_must_be_exported_again():
    older = json.loads(PROPERTIES.to_json()) | {"format": 1}
    # Format 1 did not have this field.
    del older["quality"]
    with pytest.raises(InputError, match=r"has format 1, written by another release, expected 3: run .*register.py"):
        Properties.parse(json.dumps(older), "the graph")


def test_of_the_format_before_only_classes_must_be_exported_again():
    older = json.loads(PROPERTIES.to_json()) | {"format": 2}
    assert Properties.parse(json.dumps(older), "graph").findings == PROPERTIES.findings
    with pytest.raises(InputError, match="has format 2"):
        Properties.parse(json.dumps(older | {"exclusive": True}), "graph")
