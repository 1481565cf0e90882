"""The contract between ETL, training and inference: columns, vocabulary, dataset card. No pyspark, no torch.

A row is one image:

    image_id    string   file name in the source, unique in the table
    patient_id  string   never in more than one split
    follow_up   int32    number of the study of this patient, from 0; null unknown
    age_years   float32  null unknown
    sex         string   F or M; null unknown
    view        string   view position, PA, AP or LATERAL; null unknown
    findings    list of float32, one per finding of the card's vocabulary: 1 present, 0 absent, NaN unknown
    boxes       list of float32, five per box: index of the finding, left, top, width and height as shares of the
                stored square's side, 0..1; beyond where a box exceeds the crop; empty if no box is known
    source      string   name of the source that the image came from when the row was written
    split       string   train, val or test; the partition column
    crop        list of int32, only in a table that was made with etl.crop: left, top, width and height of the part of
                the film that was kept, then the film's width and height, pixels; null: the whole film was kept
    mask_S      binary   only with etl.masks: S*S bytes, 255 where the square shows lung, 0 elsewhere; null: no mask
    mask_fault  string   only with etl.masks: why the image has no mask; null if it has one
    image_S     binary   raw uint8 pixels row by row, S*S bytes of grey or S*S*3 of RGB; one column per stored side S
    mean_S, std_S        float64  mean and standard deviation of these pixels, 0..255
    pixel_hash  string   SHA-256 of the pixels with the longest stored side, 32 hex digits; the same for the same image
    file_version string  size and time (or ETag) of the file when it was read; if it changes, the file is read again
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from conf.errors import InputError
from conf.writing import atomic_path

CONTRACT = 3
"""raised with every change of the columns, or of the pixels that a file becomes, so that older tables are rebuilt"""
SPLITS = ("train", "val", "test")

# The 14 findings in the order of Wang et al., "ChestX-ray8", CVPR 2017, and of every reproduction of CheXNet.
NIH_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
# The eight findings that etl/phantoms plants.
PHANTOM_FINDINGS = NIH_FINDINGS[:8]
PHANTOMS_FILE = "phantoms.json"
"""file in each folder of phantoms, and only there: the settings that they were generated with"""
NO_FINDING = "No Finding"

LABELS = pa.schema(
    [
        ("image_id", pa.string()),
        ("patient_id", pa.string()),
        ("follow_up", pa.int32()),
        ("age_years", pa.float32()),
        ("sex", pa.string()),
        ("view", pa.string()),
        ("findings", pa.list_(pa.float32())),
        ("boxes", pa.list_(pa.float32())),
        ("source", pa.string()),
        ("split", pa.string()),
    ]
)
"""what the source says about an image"""


def image_column(size_px: int) -> str:
    """Name of the binary column that holds the squares with side `size_px`."""
    return f"image_{size_px}"


def last_name(address: str) -> str:
    """The last name in the path of a folder or address."""
    return address.rstrip("/").rpartition("/")[2]


def mask_column(size_px: int) -> str:
    """Name of the binary column that holds the masks with side `size_px`."""
    return f"mask_{size_px}"


def table_schema(sizes_px: list[int], crop: str = "none", masks: str = "") -> pa.Schema:
    """Columns and types of the table, split included. crop, masks: etl.crop and etl.masks."""
    more = [] if crop == "none" else [("crop", pa.list_(pa.int32()))]
    if masks:
        more += [*((mask_column(size), pa.binary()) for size in sizes_px), ("mask_fault", pa.string())]
    pixels = [
        pa.field(name, kind)
        for size in sizes_px
        for name, kind in (
            (image_column(size), pa.binary()),
            (f"mean_{size}", pa.float64()),
            (f"std_{size}", pa.float64()),
        )
    ]
    return pa.schema([*LABELS, *more, *pixels, ("pixel_hash", pa.string()), ("file_version", pa.string())])


@dataclass(frozen=True)
class Card:
    """Dataset card: what one version of the table holds and how it was made.

    The Delta commit carries it, so that data and card appear in one step; <workspace>/card.json is its copy, and
    training reads the version that the copy names.
    """

    contract: int
    """CONTRACT of the code that wrote it"""
    table: str
    """folder or address of the Delta tables; empty or relative: in the workspace of this card"""
    delta_table_id: str
    """identity that the table got when it was made, because version 0 of another table is other data"""
    delta_version: int
    quarantine_version: int
    findings: list[str]
    """vocabulary, in the order of the `findings` column"""
    channels: int
    """1 grey, 3 colour"""
    sizes_px: list[int]
    images: dict[str, int]
    """rows per split"""
    patients: dict[str, int]
    """patients per split"""
    percentages: dict[str, dict[str, float]]
    """split -> finding -> images with the finding, percent of the images whose label is known"""
    positives: dict[str, dict[str, int]]
    """split -> finding -> images with the finding"""
    known: dict[str, dict[str, int]]
    """split -> finding -> images whose label is known"""
    pixel_mean: dict[str, float]
    """image column -> mean over the training split, 0..255"""
    pixel_std: dict[str, float]
    """image column -> standard deviation over the training split, 0..255"""
    images_listed: int
    """images that the label file names"""
    images_absent: int
    """listed images without a file in the source"""
    images_unlisted: int
    """files in the source that are left out, such as those that the label file does not name"""
    images_quarantined: int
    identities: str
    """fingerprint of the salt with which patients were renamed; empty if they have the source's names"""
    source: str
    """folder or address of the source; of several sources all of them, joined by commas"""
    source_sha256: dict[str, str]
    """label and list files of the source -> hash of their bytes"""
    settings: dict
    """the `etl` section of the settings"""
    boxed: dict[str, int] = field(default_factory=dict)
    """images with boxes per split; empty in cards of older releases"""
    kept_whole: dict[str, int] = field(default_factory=dict)
    """images per split that etl.crop was to crop and that were kept whole, because no lung field was found; empty
    without etl.crop"""
    lungs: dict = field(default_factory=dict)
    """lungs.json of the network that found the lungs for etl.crop; empty if none did"""
    masks: dict = field(default_factory=dict)
    """with etl.masks: `images` per split that have a mask; `faults`: why an image has none -> `images` and `first`, the
    first of them; empty without"""
    left_out: dict[str, int] = field(default_factory=dict)
    """kind and reason -> number of the left-out files when this version was made; empty in cards of older releases"""
    not_understood: dict[str, dict[str, int]] = field(default_factory=dict)
    """age, sex, view or labels -> what the source says that was not understood -> images; empty in older cards"""
    sources: dict[str, dict] = field(default_factory=dict)
    """name of each of several sources -> its `settings` that say how it is read, and its `images`, `patients`,
    `percentages`, `positives`, `known` and `boxed`, as above; empty if the table has one source"""
    agreement: dict[str, dict] = field(default_factory=dict)
    """name of another source of labels -> `images` of both, and `findings`: finding -> as compare_labels says (before
    any corrections)"""
    corrections: dict[str, dict] = field(default_factory=dict)
    """file of etl.corrections -> `sha256` of its bytes; `changed`: finding -> such as `absent to present` -> labels;
    numbers of labels `confirmed` or `already` so in the source, of images `excluded`, of rows of images `not_there`, of
    rows still `open`, of `boxes_dropped`; `who` and `why` -> rows"""

    def to_json(self) -> str:
        """The text of card.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @property
    def committed(self) -> "Card":
        """The card as the commit carries it: without the table's address, because a table may be moved."""
        return replace(self, table="")

    @property
    def source_name(self) -> str:
        """The last name of the source's folder or address, or the names of several, such as `nih + chexpert`."""
        return " + ".join(self.sources) or last_name(self.source)

    @property
    def of_phantoms(self) -> bool:
        """Whether the ETL has made the films, all of them, as phantoms."""
        return self.settings.get("source") == "phantoms"

    @property
    def split_rule(self) -> str:
        """etl.split, or of several sources that of each, such as `nih: source, clinic: hashed`."""
        rules = (f"{name}: {part['settings']['split']}" for name, part in self.sources.items())
        return ", ".join(rules) or self.settings.get("split", "")

    @property
    def title(self) -> str:
        """What figures call the data, such as `phantoms, Delta version 3`: the source's name, and the version."""
        return f"{self.source_name}, Delta version {self.delta_version}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the committed card, in hexadecimal; also card.json's if the table is in the workspace."""
        return hashlib.sha256(self.committed.to_json().encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Writes the card as JSON, atomically."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Card":
        """Reads a card; raises InputError if there is none, or if it does not have this contract's fields."""
        if not path.exists():
            raise InputError(
                f"no dataset card at {path}: run `spark-submit etl/preprocess.py` with this workspace first"
            )
        return cls.parse(path.read_text(encoding="utf-8"), str(path))

    @classmethod
    def parse(cls, text: str, origin: str) -> "Card":
        """The reverse of to_json; raises an InputError that names `origin` for any other text."""
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise InputError(
                f"{origin} is not a dataset card of this version ({error}): run `spark-submit etl/preprocess.py` again"
            ) from error
