"""What an exported model says about itself. It travels inside the graph, so a copied folder says what its outputs mean.

Imports neither torch nor openvino, because programs that only serve a model read it too.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.images.lungs.files import FINDER, describe_network

if TYPE_CHECKING:
    # It imports pyarrow, which a service does without.
    from etl.contract.schema import Card

FORMAT = 3
"""increased when the meaning of a field or an output changes; older graphs must be exported again"""
BEFORE_CLASSES = 2
"""is still read, except for models of classes, whose calibration alone has changed since"""
CARD_FILE = "model_card.json"
"""the model card, beside the graphs in a registered model's folder"""
ATTRIBUTES = ("age_years", "sex", "view")
"""columns of the table, in the order of a graph's input `attributes`"""
LUNGS = "lungs"
"""folder of the lung network, beside the graphs in a registered model's folder"""
UNKNOWN = -1
"""what stands in that input for a value that is not known"""


@dataclass(frozen=True)
class Properties:
    """Facts about one exported model. Lists have one entry per finding, in output order; null means undefined."""

    findings: list[str]
    """vocabulary"""
    exclusive: bool
    """whether the findings are classes, so that each image has exactly one of them"""
    size_px: int
    """side of the square input, in pixels"""
    square: str
    """how the ETL made its images square: `pad` or `stretch`"""
    intensity: str
    """how the ETL adjusted its grey values: `none`, `percentile` or `clahe`"""
    quality: dict
    """settings by which the ETL rejected images for their content, see conf.settings.Quality"""
    shifts: list[float]
    """added to the network's logits before they are divided by `temperatures`; the probabilities include both"""
    temperatures: list[float]
    """of classes, all the same"""
    thresholds: dict[str, list[float | None]]
    """operating point -> calibrated probabilities from which findings are called, chosen on the validation split"""
    distance_threshold: float
    """an image at a larger distance is unlike the training data; set for this very graph on the validation split"""
    map_first: float
    """distance from the image's edge to the centre of a map's first cell, as a share of the side; see map_grid.py"""
    map_step: float
    """distance between neighbouring cells, as a share of the side"""
    network: str
    run_id: str
    delta_table_id: str
    delta_version: int
    commit: str
    ancestors: list[dict]
    """models whose weights the training started from: `source` and, if known, run_id, delta_table_id, delta_version"""
    crop: str = "none"
    """part of a film that the ETL kept: `none` (all of it) or `lungs`; graphs of older releases lack it"""
    crop_margin: float = Etl.crop_margin
    """what it kept beyond the lungs, see etl.crop_margin; graphs of older releases lack it"""
    lungs: str = FINDER
    """what finds the lungs for the crop: `finder`, or the SHA-256 of a lung network, which lies in the model's folder;
    graphs of older releases lack it"""
    lungs_folder: str = ""
    """where that network lies, see `at`; empty in the graphs"""
    grey_bits: int = 0
    """bits of the greys in 16-bit files that do not say it, see etl.grey_bits; graphs of older releases lack it"""
    dicom: dict = field(default_factory=dict)
    """settings by which the ETL chose DICOM files, see conf.settings.Dicom; graphs of older releases lack it"""
    channels: int = 1
    """1: the graph takes grey pixels, 3: RGB; graphs of older releases lack it"""
    attributes: dict = field(default_factory=dict)
    """Empty if pixels are the graph's only input. Otherwise what its input `attributes` means: `columns`; `codes`, for
    sex and view the words whose places stand in it; `unknown`, the number for a value that is not known; and
    `trained_on`, the number of films of the training split for each word and for `unknown`, of the age `low` and
    `high` in years (null: no age was known) and `unknown`. Graphs of older releases lack it"""
    exact_maps: bool = True
    """whether the logit is composed of the map's places (a linear layer after a mean); otherwise it comes from a class
    token (see XrayClassifier) or from the vote of several networks, and the map says only which places speak more for a
    finding than others; graphs of older releases lack it and are exact"""
    members: list[dict] = field(default_factory=list)
    """of several networks as one: `network`, run_id, and `votes` (finding -> share) of each; graphs of older releases
    lack it"""
    unsure: dict = field(default_factory=dict)
    """Empty if the model does not answer `unsure`. Otherwise the bounds of its answers, chosen on the validation split
    with this graph's own probabilities: `error_rate`; `absent_below` and `present_above`, for each finding the
    probability below which the answer is absent, and above which it is present (null: never); `patients_with` and
    `patients_without`, the numbers of patients behind each bound. Graphs of older releases lack it"""
    recalibrated: dict = field(default_factory=dict)
    """if the calibration was fitted to another site: its name, and the `version` whose network this is"""
    format: int = FORMAT

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, (S, S) or (S, S, 3)."""
        square = (self.size_px, self.size_px)
        return square if self.channels == 1 else (*square, self.channels)

    @property
    def input(self) -> str:
        """What the model takes, for people."""
        colour = "grey" if self.channels == 1 else "colour (RGB)"
        more = "; age in years, sex and view position, each known or unknown" if self.attributes else ""
        part = f", of the lungs with a margin of {self.crop_margin:g}," if self.crop == "lungs" else ","
        return f"{self.size_px} x {self.size_px} {colour} pixels{part} made square by `{self.square}`{more}"

    @property
    def finds_lungs_by(self) -> str:
        """What crop_film asks: `finder`, or the folder of the lung network."""
        assert self.lungs == FINDER or self.lungs_folder, "properties of a graph that was not opened in its folder"
        return self.lungs_folder or FINDER

    def at(self, folder: Path) -> "Properties":
        """The properties of a model that lies in `folder`. Raises InputError if its lung network is not there."""
        if self.lungs == FINDER:
            return self
        place = folder / LUNGS
        if (found := describe_network(str(place))["sha256"]) != self.lungs:
            raise InputError(
                f"{place} has the lung network {found[:12]}, the model was trained with {self.lungs[:12]}: register it "
                "again"
            )
        return replace(self, lungs_folder=str(place.absolute()))

    def to_json(self) -> str:
        """Returns one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str, origin: str) -> "Properties":
        """Reads the output of to_json; raises InputError, naming `origin`, for any other text or another format."""
        try:
            fields = json.loads(text)
            same = fields["format"] == FORMAT or (fields["format"] == BEFORE_CLASSES and not fields["exclusive"])
            properties = cls(**fields) if same else None
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise InputError(
                f"{origin} does not say what its outputs mean ({error}): export it with `python inference/register.py`"
            ) from error
        if properties is None:
            raise InputError(
                f"{origin} has format {fields['format']}, written by another release, expected {FORMAT}: run "
                "`python inference/register.py` again"
            )
        return properties


def preparation_of(settings: dict, lungs: dict | None = None) -> dict:
    """The settings of the ETL on which the pixels of a table depend; Properties has fields of the same names.

    settings: those in a card; lungs: Card.lungs. A setting that the card of an older release lacks gets its default.
    """
    names = ("square", "crop", "crop_margin", "intensity", "grey_bits")
    kept = {name: settings.get(name, getattr(Etl, name)) for name in names}
    return kept | {"lungs": (lungs or {}).get("sha256", FINDER)}


def check_table(properties: Properties, card: "Card", place: object) -> None:
    """Raises InputError if the pixels of a table are not those that the model takes. place: the table's workspace."""
    if card.channels != properties.channels:
        kinds = {1: "grey", 3: "in colour"}
        raise InputError(
            f"the images in the table of {place} are {kinds[card.channels]}, those that the model takes are "
            f"{kinds[properties.channels]}: score the images' folder with --scoring.source DIR, which decodes them as "
            "the model's were"
        )
    if properties.size_px not in card.sizes_px:
        raise InputError(
            f"the model takes {properties.size_px} pixels, the table of {place} has {card.sizes_px}: run the "
            "ETL with this size in etl.sizes_px too, or score the images' folder with --scoring.source DIR"
        )
    for key, got in preparation_of(card.settings, card.lungs).items():
        expected = getattr(properties, key)
        if got != expected:
            raise InputError(
                f"the table of {place} was made with etl.{key} {got}, the model was trained with {expected}: "
                "score the images' folder with --scoring.source DIR, which prepares them as the model's were"
            )
