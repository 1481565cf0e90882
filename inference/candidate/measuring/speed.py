"""Measures each variant of the model: latency, throughput, bytes on disk, and memory of a process of its own."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.model.graphs import Predict
from inference.model.inputs import Inputs, chosen, without_films
from inference.model.properties import Properties

WARM_UP = 3
LATENCY_REPETITIONS = 50
THROUGHPUT_REPETITIONS = 5
# A large network in torch on a busy machine takes a second per image: its median is known long before 50 repetitions.
TIME_LIMIT_S = 10
MIN_REPETITIONS = 3


@dataclass(frozen=True)
class Speed:
    """Wall times in one process that uses all cores, one request at a time."""

    latency_ms: float
    """median, for a single image"""
    latency_p95_ms: float
    """95th percentile, for a single image"""
    images_per_s: float
    """at inference.batch_size, from the median batch"""


@dataclass(frozen=True)
class Footprint:
    """The cost of a process that imports what a variant needs, opens it and answers."""

    first_answer_s: float
    """from the process's first line to its first answer"""
    peak_memory_mb: float
    """peak resident memory, including a batch of inference.batch_size"""


def measure_speed(predict: Predict, properties: Properties, batch_size: int) -> Speed:
    """Times a variant on noise, as the speed of these networks does not depend on the picture."""
    inputs = without_films(properties, batch_size)
    inputs[0][:] = np.random.default_rng(0).integers(0, 256, inputs[0].shape, dtype=np.uint8)
    singles_s = _repeat(predict, chosen(inputs, slice(1)), WARM_UP, LATENCY_REPETITIONS)
    batches_s = _repeat(predict, inputs, 1, THROUGHPUT_REPETITIONS)
    return Speed(
        latency_ms=float(np.median(singles_s) * 1000),
        latency_p95_ms=float(np.percentile(singles_s, 95) * 1000),
        images_per_s=float(batch_size / np.median(batches_s)),
    )


def _repeat(predict: Predict, inputs: Inputs, warm_up: int, repetitions: int) -> np.ndarray:
    """Returns the seconds of each repetition after the warm-up; stops early when TIME_LIMIT_S is used up."""
    for _ in range(warm_up):
        predict(*inputs)
    seconds: list[float] = []
    while len(seconds) < repetitions and (len(seconds) < MIN_REPETITIONS or sum(seconds) < TIME_LIMIT_S):
        started = time.perf_counter()
        predict(*inputs)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def measure_footprint(mode: str, folder: Path, batch_size: int) -> Footprint:
    """Runs inference/candidate/measuring/footprint.py on the variant `mode` in `folder`."""
    command = [
        sys.executable,
        "-m",
        "inference.candidate.measuring.footprint",
        mode,
        str(folder.absolute()),
        str(batch_size),
    ]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"`{' '.join(command)}` ended with exit code {ended.returncode}: {ended.stderr[-500:]}")
    return Footprint(**json.loads(ended.stdout))


def size_mb(folder: Path) -> float:
    """Returns the size of the files in `folder`, in 10**6 bytes."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def describe_machine() -> dict:
    """Returns what the speeds depend on: the processor, the cores of this process, and the 8-bit instructions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", "unknown"),
        "cores": len(os.sched_getaffinity(0)),
        "int8_instructions": [flag for flag in ("avx2", "avx_vnni", "avx512_vnni", "amx_int8") if flag in flags],
    }
