"""Known boxes of test images, found again by the pixels, so that a served image shows where radiologists saw a finding.

No name and no pixel of an image is kept, only the SHA-256 of what the model sees of it. Imports neither torch nor
deltalake.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from conf.errors import InputError

FILE = "boxes.json"


def key_of(pixels: np.ndarray) -> str:
    """pixels: (S, S) or (S, S, 3) uint8, as the model takes them."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def load_boxes(folder: Path) -> dict[str, list[list[float]]]:
    """Key of an image -> its boxes: index of the finding, left, top, width and height as shares of the side, 0..1.

    folder: a registered model's; without the file there are no boxes. Raises InputError if the file is damaged.
    """
    if not (folder / FILE).exists():
        return {}
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / FILE} cannot be read ({error}): run `python inference/register.py` again"
        ) from error
