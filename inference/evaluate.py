"""How good and how fast is each variant of the model: scores on one split, AUROC, latency, throughput."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from inference.graphs import compile_graph, open_graph
from training.metrics import auroc_per_finding
from training.models import XrayClassifier
from training.plan import Split
from training.readers import read_batches

Scores = Callable[[np.ndarray], np.ndarray]
"""(batch, S, S) uint8 to (batch, findings), higher means more likely present"""

WARM_UP = 3
LATENCY_REPETITIONS = 50
THROUGHPUT_REPETITIONS = 5
# A large network in torch on a busy machine takes a second per image: its median is known long before 50 of them.
TIME_LIMIT_S = 10
MIN_REPETITIONS = 3


@dataclass(frozen=True)
class Speed:
    """Wall time of one process that uses all cores, one request at a time."""

    latency_ms: float
    """of a single image, median"""
    latency_p95_ms: float
    """of a single image, 95th percentile"""
    images_per_s: float
    """at inference.batch_size, from the median batch"""


def torch_scores(classifier: XrayClassifier) -> Scores:
    """The network as it was trained, on the CPU."""

    def scores(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return classifier.probabilities_and_maps(torch.from_numpy(pixels))[0].numpy()

    return scores


def graph_scores(folder: Path) -> Scores:
    """The graph in `folder`, probabilities only; it computes the maps as well, as it does when it is served."""
    predict = compile_graph(open_graph(folder))
    return lambda pixels: predict(pixels)[0]


def score_split(variants: dict[str, Scores], split: Split, batch_size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels of the split and the scores of each variant on the same batches, all (images, findings)."""
    labels: list[np.ndarray] = []
    scores: dict[str, list[np.ndarray]] = {name: [] for name in variants}
    with tqdm(total=split.rows, unit="image", desc=f"{split.name} split") as bar:
        for batch in read_batches(split, batch_size):
            labels.append(batch.labels.numpy())
            for name, variant in variants.items():
                scores[name].append(variant(batch.pixels.numpy()))
            bar.update(len(batch.labels))
    return np.concatenate(labels), {name: np.concatenate(parts) for name, parts in scores.items()}


def aurocs_of_finite(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUROC per finding, (findings,) float64; NaN where it is undefined or a score of the finding is not finite."""
    finite = np.isfinite(scores).all(axis=0)
    return np.where(finite, auroc_per_finding(labels, np.where(finite, scores, 0)), np.nan)


def measure_speed(variant: Scores, size_px: int, batch_size: int) -> Speed:
    """Times a variant on noise: the time of these networks does not depend on the picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, size_px, size_px), dtype=np.uint8)
    singles_s = _repeat(variant, pixels[:1], WARM_UP, LATENCY_REPETITIONS)
    batches_s = _repeat(variant, pixels, 1, THROUGHPUT_REPETITIONS)
    return Speed(
        latency_ms=float(np.median(singles_s) * 1000),
        latency_p95_ms=float(np.percentile(singles_s, 95) * 1000),
        images_per_s=float(batch_size / np.median(batches_s)),
    )


def _repeat(variant: Scores, pixels: np.ndarray, warm_up: int, repetitions: int) -> np.ndarray:
    """Seconds of each repetition after the warm-up; fewer than asked for once TIME_LIMIT_S is used up."""
    for _ in range(warm_up):
        variant(pixels)
    seconds: list[float] = []
    while len(seconds) < repetitions and (len(seconds) < MIN_REPETITIONS or sum(seconds) < TIME_LIMIT_S):
        started = time.perf_counter()
        variant(pixels)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def describe_machine() -> dict:
    """What the speeds depend on: the processor's name, the cores of this process, and 8-bit instructions it has."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", "unknown"),
        "cores": len(os.sched_getaffinity(0)),
        "int8_instructions": [flag for flag in ("avx2", "avx_vnni", "avx512_vnni", "amx_int8") if flag in flags],
    }
