"""Age, sex and view as a graph takes them: the graph's encoding is the training's."""

import itertools

import numpy as np
import pandas as pd
import torch

from conf.words import SEXES, VIEWS
from inference.model.inputs import Attributes, attributes_of, codes_of
from inference.model.networks.served import encode_codes
from training.network.attributes import encode_attributes

AGES = (None, 0.0, 1.5, 50.0, 64.0, 120.0)


def test_the_graph_encodes_as_the_training_does():
    every = [Attributes(*values) for values in itertools.product(AGES, (None, *SEXES), (None, *VIEWS))]
    columns = zip(*((one.age_years, one.sex, one.view) for one in every), strict=True)
    codes = codes_of(every)
    assert (codes.shape, codes.dtype) == ((len(every), 3), np.float32)
    np.testing.assert_array_equal(encode_codes(torch.from_numpy(codes)).numpy(), encode_attributes(*columns))


def test_numbers_without_a_meaning_are_unknown():
    strange = torch.tensor([[float("nan"), 7, 0.5], [-0.5, -1, float("nan")]])
    unknown = encode_attributes([None] * 2, [None] * 2, [None] * 2)
    np.testing.assert_array_equal(encode_codes(strange).numpy(), unknown)


def test_what_a_table_lacks_is_unknown():
    rows = pd.DataFrame(
        {
            "age_years": pd.array([64, None], "Float32"),
            "sex": ["F", None],
            "view": pd.Series([np.nan, "AP"], dtype=object),
        }
    )
    assert attributes_of(rows) == [Attributes(64.0, "F", None), Attributes(None, None, "AP")]
