"""What a graph takes: the pixels of films and, if its network has a branch for them, age, sex and view.

Neither torch nor openvino is imported, because all that only serve a model build its inputs here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from conf.words import SEXES, VIEWS
from inference.model.properties import ATTRIBUTES, UNKNOWN, Properties

if TYPE_CHECKING:
    import pandas as pd

Inputs = tuple[np.ndarray, ...]
"""The arguments of a graph: `pixels`, (batch, S, S) grey or (batch, S, S, 3) RGB, uint8; and only if its properties say
that it takes them, `attributes`, (batch, 3) float32: age in years, place of the sex in SEXES, place of the view in
VIEWS; UNKNOWN, and any other number that means nothing, is unknown. The graph encodes them itself, as in the training,
so that no client can do it otherwise."""


@dataclass(frozen=True)
class Attributes:
    """Age and sex of the patient and view of one film; None: unknown."""

    age_years: float | None = None
    sex: str | None = None
    """F or M"""
    view: str | None = None
    """PA, AP or LATERAL"""


def inputs_of(properties: Properties, pixels: np.ndarray, attributes: Sequence[Attributes]) -> Inputs:
    """The arguments of the model's graph. pixels: as in Inputs. attributes: one per image; a model of pixels alone does
    not use them."""
    return (pixels, codes_of(attributes)) if properties.attributes else (pixels,)


def inputs_of_rows(properties: Properties, pixels: np.ndarray, rows: "pd.DataFrame") -> Inputs:
    """The same for images of a table. rows: one per image, with the columns ATTRIBUTES if the model takes them."""
    return inputs_of(properties, pixels, attributes_of(rows) if properties.attributes else ())


def codes_of(attributes: Sequence[Attributes]) -> np.ndarray:
    """The input `attributes` of a graph, (images, 3) float32."""
    rows = [
        (UNKNOWN if one.age_years is None else one.age_years, _place(one.sex, SEXES), _place(one.view, VIEWS))
        for one in attributes
    ]
    return np.array(rows, np.float32).reshape(-1, len(ATTRIBUTES))


def attributes_of(rows: "pd.DataFrame") -> list[Attributes]:
    """What a table says about each image. rows: with the columns ATTRIBUTES, in which None and NaN are unknown."""
    cells = rows[list(ATTRIBUTES)].astype(object).where(rows[list(ATTRIBUTES)].notna(), None)
    return [Attributes(*values) for values in cells.itertuples(index=False)]


def without_films(properties: Properties, num_images: int) -> Inputs:
    """Black images of patients about whom nothing is known, for a first call that only prepares a graph."""
    return inputs_of(properties, np.zeros((num_images, *properties.image_shape), np.uint8), [Attributes()] * num_images)


def chosen(inputs: Inputs, which: object) -> Inputs:
    """The inputs of some of the images. which: anything that indexes an array."""
    return tuple(part[which] for part in inputs)


def _place(word: str | None, words: tuple[str, ...]) -> int:
    return UNKNOWN if word is None else words.index(word)
