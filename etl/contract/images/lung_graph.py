"""Finds the lungs by a network that inference/lungs.py exported. The owner of openvino in etl; no torch.

A lung network is a folder with model.xml, model.bin and lungs.json: size_px, the side of its input; square, how films
are made square for it; precision; sha256, that of both files of the graph; and what is known of its training.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from conf.errors import InputError
from etl.contract.images.pixels import to_square

GRAPH, WEIGHTS, ABOUT = "model.xml", "model.bin", "lungs.json"
FORMAT = 1
FINDER = "finder"
"""in place of a folder: the classifiers of lung_finder.py"""
COMPILE_OPTIONS = {
    # As in inference/model/graphs.py. Each film is looked at by one process of many.
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
    "INFERENCE_NUM_THREADS": 1,
    "ENABLE_CPU_PINNING": False,
}
# Shares of the film. Lungs on the real sample cover 0.15 to 0.5 of it, and each of both is more than a speck.
FIELD_SHARE = 0.05, 0.8
SPECK_SHARE = 0.01
MIN_SIDE = 0.25
"""smallest width and height of the field, as shares of the film's sides"""


class LungGraph(NamedTuple):
    """An opened network, for one thread at a time."""

    request: object
    """OpenVINO's: from (1, S, S) uint8 to logits of lung, (1, S, S) float32"""
    size_px: int
    square: str


def describe_network(folder: str) -> dict:
    """The content of a folder's lungs.json. Raises InputError if there is none, or if it describes another graph."""
    try:
        about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, expected {FORMAT}")
        if digest_of(Path(folder)) != about["sha256"]:
            raise ValueError(f"{GRAPH} and {WEIGHTS} are not those that it describes")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{folder} is no folder of a lung network ({ABOUT}: {error!s:.200}): give the folder that `python "
            "inference/lungs.py` names, or `finder`"
        ) from error
    return about


def describe_lungs(lungs: str) -> dict:
    """What the card says of what finds the lungs. lungs: etl.lungs; empty for `finder`. Errors: describe_network's."""
    return {} if lungs == FINDER else describe_network(lungs)


def digest_of(folder: Path) -> str:
    """SHA-256 of both files of the graph, in hexadecimal."""
    digest = hashlib.sha256()
    for name in (GRAPH, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def open_network(folder: str) -> LungGraph:
    """Opens the network of a folder once in this process. Raises InputError as describe_network does."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise InputError(
            "etl.lungs names a network, but the Python module openvino is not installed: `pip install openvino`, or "
            "leave etl.lungs out"
        ) from error
    about = describe_network(folder)
    try:
        # Not as a Path: Ctrl-C in the middle of its conversion would look like a damaged graph.
        compiled = openvino.Core().compile_model(f"{folder}/{GRAPH}", "CPU", COMPILE_OPTIONS)
    except RuntimeError as error:
        raise InputError(f"{folder}/{GRAPH} is not a readable graph ({error!s:.200}): export it again") from error
    return LungGraph(compiled.create_infer_request(), about["size_px"], about["square"])


def lung_field(film: np.ndarray, folder: str) -> np.ndarray:
    """Which pixels of the network's square are lung, (S, S) bool. film: (height, width) uint8 grey, upright."""
    graph = open_network(folder)
    square = to_square(film, graph.size_px, graph.square, quick=True)
    return graph.request.infer([square[None]])[0][0] >= 0


def box_of_field(field: np.ndarray) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of the box around the two largest parts of a field, in pixels; None if there is none.

    field: (height, width) bool. Further parts are often air beside the body, and specks are nothing.
    """
    _, _, parts, _ = cv2.connectedComponentsWithStats(field.astype(np.uint8))
    # The first part is what is no lung.
    order = np.argsort(-parts[1:, cv2.CC_STAT_AREA], kind="stable")
    large = parts[1:][order[:2]]
    large = large[large[:, cv2.CC_STAT_AREA] >= SPECK_SHARE * field.size]
    share = large[:, cv2.CC_STAT_AREA].sum() / field.size
    if not FIELD_SHARE[0] <= share <= FIELD_SHARE[1]:
        return None
    start = large[:, :2].min(axis=0)
    sides = (large[:, :2] + large[:, 2:4]).max(axis=0) - start
    if (sides < MIN_SIDE * np.array(field.shape[::-1])).any():
        return None
    return tuple(int(number) for number in (*start, *sides))
