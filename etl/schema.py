"""The contract between ETL, training and inference: columns, vocabulary, dataset card. No pyspark, no torch.

A row is one image:

    image_id    string   file name in the source, unique in the table
    patient_id  string   never in more than one split
    follow_up   int32    number of the study of this patient, from 0; null unknown
    age_years   float32  null unknown
    sex         string   F or M; null unknown
    view        string   view position, PA, AP or LATERAL; null unknown
    findings    list of float32, one per finding of the card's vocabulary: 1 present, 0 absent, NaN unknown
    split       string   train, val or test; the partition column
    image_S     binary   raw uint8 grey pixels, S*S bytes, row by row; one column per stored side S
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from conf.errors import InputError
from conf.workspace import write_json

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
NO_FINDING = "No Finding"


def image_column(size_px: int) -> str:
    """Name of the binary column that holds the squares with side `size_px`."""
    return f"image_{size_px}"


@dataclass(frozen=True)
class Card:
    """Dataset card: what one version of the table holds and how it was made.

    The card is the commit point of the ETL: it is written last, and training reads the Delta version that it names.
    """

    delta_table_id: str
    """given by Delta when the table was made: version 0 of another table is other data"""
    delta_version: int
    quarantine_version: int
    findings: list[str]
    """vocabulary, in the order of the `findings` column"""
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
    """of these, without a file in the source"""
    images_unlisted: int
    """files in the source that the label file does not name: left out"""
    images_quarantined: int
    source: str
    source_sha256: dict[str, str]
    """label and list files of the source -> hash of their bytes"""
    settings: dict
    """the `etl` section of the settings"""

    def write(self, path: Path) -> None:
        """Writes the card as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Card":
        """Reads a card; raises InputError where there is none or it does not have this contract's fields."""
        if not path.exists():
            raise InputError(
                f"no dataset card at {path}: run `spark-submit etl/preprocess.py` with this workspace first"
            )
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, json.JSONDecodeError) as error:
            raise InputError(
                f"{path} is not a dataset card of this version ({error}): run `spark-submit etl/preprocess.py` again"
            ) from error
