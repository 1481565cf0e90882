"""What an exported model says of itself: it travels inside the graph, so that a copied folder knows what it means.

Imports neither torch nor openvino: who serves a model reads this too.
"""

import json
from dataclasses import asdict, dataclass

from conf.errors import InputError

FORMAT = 2
"""raised when the meaning of a field or an output changes: an older graph is exported again"""
PREPARATION = ("square", "intensity")
"""settings of the ETL, and fields of Properties, on which the pixels of a table depend"""
CARD_FILE = "model_card.json"
"""beside the graphs in a registered model's folder: all that is told of it"""


@dataclass(frozen=True)
class Properties:
    """Lists are in the order of the outputs, one number per finding; null is undefined."""

    findings: list[str]
    """vocabulary"""
    exclusive: bool
    """whether each image is of exactly one of the findings, which are classes"""
    size_px: int
    """side of the square input, pixels"""
    square: str
    """how the ETL made its images square: `pad` or `stretch`"""
    intensity: str
    """how the ETL adjusted its grey values: `none`, `percentile` or `clahe`"""
    quality: dict
    """which images the ETL left out for what they show, see conf.settings.Quality"""
    shifts: list[float]
    """added to the network's logits before they are divided by `temperatures`; the probabilities have both inside"""
    temperatures: list[float]
    thresholds: dict[str, list[float | None]]
    """operating point -> calibrated probability from which on a finding is called, chosen on the validation split"""
    distance_threshold: float
    """of `distances`, above which an image is unlike the training data; of this very graph on the validation split"""
    map_first: float
    """centre of a map's first cell from the image's edge, as a share of the side; see map_grid.py"""
    map_step: float
    """distance from cell to cell, as a share of the side"""
    network: str
    run_id: str
    delta_table_id: str
    delta_version: int
    commit: str
    ancestors: list[dict]
    """models whose weights the training began with: `source`, and where known run_id, delta_table_id, delta_version"""
    format: int = FORMAT

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str, origin: str) -> "Properties":
        """to_json's reverse; raises InputError, which names `origin`, for any other text or another format."""
        try:
            fields = json.loads(text)
            properties = cls(**fields) if fields["format"] == FORMAT else None
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise InputError(
                f"{origin} does not say what its outputs mean ({error}): export it with `python inference/register.py`"
            ) from error
        if properties is None:
            raise InputError(
                f"{origin} has format {fields['format']}, this program reads {FORMAT}: run "
                "`python inference/register.py` again"
            )
        return properties
