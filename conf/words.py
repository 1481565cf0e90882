"""Words that all stages must use alike."""

from typing import Literal, get_args

RESEARCH_USE = "Research use only, not for clinical use."
SEXES = ("F", "M")
View = Literal["PA", "AP", "LATERAL"]
VIEWS = get_args(View)
"""view positions: posteroanterior, anteroposterior (mostly bedside), lateral"""
