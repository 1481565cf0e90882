"""Finds the lungs by a network (files.py). The owner of openvino in etl; no torch."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from conf.errors import InputError
from etl.contract.images.lungs.files import GRAPH, describe_network
from etl.contract.images.pixels import to_square

COMPILE_OPTIONS = {
    # As in inference/model/graphs.py. Each film is looked at by one process of many.
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
    "INFERENCE_NUM_THREADS": 1,
    "ENABLE_CPU_PINNING": False,
}
# Shares of the film's area that the field of both lungs can have, and below which a part of it is a speck.
FIELD_SHARE = 0.05, 0.8
SPECK_SHARE = 0.01
MIN_SIDE = 0.25
"""smallest width and height of the field, as shares of the film's sides"""
SMALLER_LUNG = 1 / 3
"""smallest area of one lung as a share of the other's: if less of it is seen, it is opaque, and a crop might lose it"""
# Two lungs lie beside each other: the share of the narrower one's width that both may cover, and of the shorter one's
# height that both must.
ACROSS, ALONG = 0.25, 0.5


class LungGraph(NamedTuple):
    """An opened network, for one thread at a time."""

    request: object
    """OpenVINO's: from (1, S, S) uint8 to logits of lung, (1, S, S) float32"""
    size_px: int
    square: str


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
    """Left, top, width and height of the box around both lungs of a field, in pixels; None without two lungs.

    field: (height, width) bool, of the film alone. The lungs are its two largest parts, if they lie beside each other,
    neither is much smaller, and neither reaches the left or right edge of the film, as air beside the body does.
    Smaller parts are ignored. If a third part is as large as a lung could be, nobody knows which two are the lungs.
    """
    _, _, parts, _ = cv2.connectedComponentsWithStats(field.astype(np.uint8))
    # The first part is what is no lung.
    parts = parts[1:][np.argsort(-parts[1:, cv2.CC_STAT_AREA], kind="stable")]
    large, areas = parts[:2], parts[:, cv2.CC_STAT_AREA]
    if len(large) < 2 or areas[1] < max(SMALLER_LUNG * areas[0], SPECK_SHARE * field.size):
        return None
    starts, sides = large[:, :2], large[:, 2:4]
    ends = starts + sides
    across, along = (ends.min(axis=0) - starts.max(axis=0)) / sides.min(axis=0)
    if (
        not FIELD_SHARE[0] <= areas[:2].sum() / field.size <= FIELD_SHARE[1]
        or (areas[2:] >= SMALLER_LUNG * areas[0]).any()
        or across > ACROSS
        or along < ALONG
        or starts[:, 0].min() == 0
        or ends[:, 0].max() == field.shape[1]
    ):
        return None
    start = starts.min(axis=0)
    sides = ends.max(axis=0) - start
    if (sides < MIN_SIDE * np.array(field.shape[::-1])).any():
        return None
    return tuple(int(number) for number in (*start, *sides))
