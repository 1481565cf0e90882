"""Words that all stages must use alike."""

from typing import Literal, get_args

RESEARCH_USE = "Research use only, not for clinical use."
SEXES = ("F", "M")
Split = Literal["train", "val", "test"]
View = Literal["PA", "AP", "LATERAL"]
VIEWS = get_args(View)
"""view positions: posteroanterior, anteroposterior (mostly bedside), lateral"""


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun, such as `1 patient` and `2,000 patients`. many: the plural; empty: `one` and an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
