"""Draws the reference films of a model, and asks it for their answers."""

import cv2
import numpy as np

from etl.phantoms.film import FINDINGS, render
from inference.film.films import load_film
from inference.model.graphs import Predict
from inference.model.inputs import Attributes, inputs_of
from inference.model.properties import Properties
from inference.model.reference import Reference

SEED = 20_170_505
DRAWN_PX = 512
PLANTED = ((), *((finding,) for finding in FINDINGS[:7]))
"""findings of each film: one without, and seven with one each"""


def draw_reference(variants: dict[str, Predict], properties: Properties) -> Reference:
    """Phantoms as serving would prepare them, with the answers of each variant. No film of a patient is among them.

    The model need not know their findings, nor have seen phantoms: only the answers of two machines are compared.
    """
    films, people = [], []
    for number, findings in enumerate(PLANTED):
        female, ap = bool(number % 2), number % 3 == 0
        film, _ = render((SEED, number, 0), female, ap, findings, DRAWN_PX)
        films.append(load_film(cv2.imencode(".png", film)[1].tobytes(), properties).pixels)
        people.append(Attributes(30.0 + 5 * number, "F" if female else "M", "AP" if ap else "PA"))
    inputs = inputs_of(properties, np.stack(films), people)
    return Reference(inputs, {name: predict(*inputs).probabilities for name, predict in variants.items()})
