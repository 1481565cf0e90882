"""Reference films: generated ones, with the answers that the model gave to them on the machine that measured it.

INT8 may answer otherwise elsewhere: a CPU without VNNI adds the products of 8-bit numbers in 16 bits, which can
saturate. So whatever opens a model asks it for these films first. Imports neither torch nor openvino.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conf.errors import InputError
from inference.model.inputs import Inputs

if TYPE_CHECKING:
    from inference.model.graphs import Predict

FILE = "reference.npz"
FACTOR = "factor"
ROUNDING = {"fp32": 1e-3, "onnx": 1e-3, "torch": 1e-3, "fp16": 0.01, "int8": 0.02}
"""mode -> difference of a probability that machines may make by the order of their sums"""


@dataclass(frozen=True)
class Reference:
    """Generated films and the model's answers to them."""

    inputs: Inputs
    expected: dict[str, np.ndarray]
    """mode -> probabilities, (films, findings) float32"""
    factor: float = 1.0
    """by which a recalibration may have enlarged the differences between machines"""

    def tolerance(self, mode: str) -> float:
        """The largest difference of a probability that says nothing: that of rounding or, if INT8 differs more from
        FP32 on these films, as much as that, because the gate has accepted it."""
        allowed = ROUNDING[mode] * self.factor
        if mode == "int8" and "fp32" in self.expected:
            allowed = max(allowed, float(np.abs(self.expected["int8"] - self.expected["fp32"]).max()))
        return allowed

    def save(self, folder: Path) -> None:
        """Writes the file into a model's folder."""
        inputs = {f"input_{place}": part for place, part in enumerate(self.inputs)}
        np.savez_compressed(folder / FILE, **inputs, **self.expected, **{FACTOR: self.factor})


def read_reference(folder: Path) -> Reference | None:
    """The reference in a model's folder; None for a model of an older release.

    Raises InputError for a damaged file.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        with np.load(folder / FILE) as kept:
            inputs = sorted(name for name in kept.files if name.startswith("input_"))
            expected = {name: kept[name] for name in kept.files if name not in (*inputs, FACTOR)}
            return Reference(tuple(kept[name] for name in inputs), expected, float(kept[FACTOR]))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{folder / FILE} is damaged ({error}): copy the model again, or run `python inference/register.py`"
        ) from error


def difference_here(folder: Path, mode: str, predict: Predict, findings: list[str], setting: str) -> str:
    """A sentence if the model answers otherwise here than where it was measured; empty if not, or if nobody can know.

    folder: that of the model. predict: asks the opened `mode`. setting: the one by which a user chooses another mode.
    """
    reference = read_reference(folder)
    if reference is None or mode not in reference.expected:
        return ""
    differences = np.abs(predict(*reference.inputs).probabilities - reference.expected[mode])
    differences = np.nan_to_num(differences, nan=np.inf)
    film, finding = np.unravel_index(differences.argmax(), differences.shape)
    most, tolerance = differences[film, finding], reference.tolerance(mode)
    if most <= tolerance:
        return ""
    others = [name for name in ("fp16", "fp32") if name != mode and name in reference.expected]
    way_out = f"choose {setting} {' or '.join(others)}" if others else "serve it on another machine"
    return (
        f"{mode.upper()} answers otherwise on this machine than on the one that measured the model: by up to "
        f"{most:.3f} in a probability ({findings[finding]}, {len(differences)} reference films), where {tolerance:.3f} "
        f"would say nothing. Its AUROC and thresholds may not hold here: {way_out}"
    )
