"""For tests: a lung network that needs no training, and a table of films with masks on which one can be trained."""

import json
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from conf.workspace import Workspace
from etl.contract.images.lungs.files import ABOUT, FORMAT, GRAPH, digest_of
from etl.contract.version import keep_card
from tests.conftest import NihFolder, png
from tests.etl.tables import run

SIZE_PX = 64


def write_network(folder: Path, size_px: int, square: str = "pad") -> Path:
    """Writes a network into a new folder and returns it: what is darker than grey 100, but not black, is lung."""
    folder.mkdir(parents=True)
    pixels = ops.parameter([-1, size_px, size_px], np.uint8)
    logits = ops.subtract(ops.constant(np.float32(100)), ops.convert(pixels, "f32"))
    # Black is padding.
    known = ops.convert(ops.greater(pixels, ops.constant(np.uint8(0))), "f32")
    logits = ops.add(ops.multiply(logits, known), ops.subtract(known, ops.constant(np.float32(1))))
    ov.save_model(ov.Model([logits], [pixels]), folder / GRAPH)
    about = {"format": FORMAT, "size_px": size_px, "square": square, "sha256": digest_of(folder)}
    (folder / ABOUT).write_text(json.dumps(about))
    return folder


def table_with_masks(root: Path, new_store) -> Workspace:
    """A workspace whose table has 48 films of two dark blocks, with masks of them, but for one film."""
    folder, rng = NihFolder(root / "nih"), np.random.default_rng(0)
    (folder.root / "masks").mkdir()
    for name, *_ in folder.rows:
        film, mask = _drawn(rng)
        folder.put(name, png(film))
        (folder.root / "masks" / name).write_bytes(png(mask))
    (folder.root / "masks" / folder.rows[0][0]).unlink()
    workspace = Workspace.at(str(root / "workspace"))
    new_store(workspace)
    keep_card(run(folder, workspace, masks="masks").card, workspace)
    return workspace


def _drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    top, left = rng.integers(6, 20), rng.integers(4, 12)
    for start in (left, left + 26):
        mask[top : top + 32, start : start + 18] = 255
    film = np.where(mask > 0, 60, 170) + rng.normal(0, 12, mask.shape)
    return film.clip(0, 255).astype(np.uint8), mask
