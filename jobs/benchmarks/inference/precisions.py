"""Measures how fast one network answers in torch, ONNX Runtime and OpenVINO, on the same images and number of threads.

    python -m jobs.benchmarks.inference.precisions   the champion of runs/demo
    python -m jobs.benchmarks.inference.precisions --model densenet121 --size_px 224   a fresh network, random weights

torch runs eager and compiled (torch.compile), ONNX Runtime in FP32, OpenVINO in FP32 and INT8; each with --threads
threads. They take turns, so that what slows the machine slows them all. Prints images/s and the ratio to OpenVINO FP32.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from conf.errors import run_command
from conf.progress import track
from conf.workspace import Workspace
from inference.candidate.measuring.speed import describe_machine
from inference.model.graphs import Predict
from inference.model.model_files import find_model
from inference.model.networks.fitted import load_served
from inference.model.served_model import open_served
from inference.model.variants import open_variant
from jobs.benchmarks.inference.fresh import export_fresh

BATCHES = (1, 16)
REFERENCE = "OpenVINO FP32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workspace", default="runs/demo", help="workspace whose champion is measured (default runs/demo)"
    )
    parser.add_argument("--model", help="a fresh network instead, as in training.model, such as densenet121")
    parser.add_argument("--size_px", type=int, default=224, help="side of the fresh network's images (default 224)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each runtime (default 1)")
    parser.add_argument("--repetitions", type=int, default=9, help="number of turns (default 9)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="seconds of each runtime's turn, at least (default 1)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.model:
            folder, size_px, name = Path(temporary), arguments.size_px, f"{arguments.model}, random weights"
            export_fresh(arguments.model, size_px, folder)
        else:
            served = open_served(find_model(Workspace.at(arguments.workspace), "chexscale"))
            folder, size_px = served.folder, served.properties.size_px
            name = f"{served.properties.network}, {served.name} version {served.version}"
        predicts = open_all(folder, arguments.threads)
        speeds = measure(predicts, size_px, arguments.repetitions, arguments.seconds)
    show(speeds, f"{name}, {size_px} px", arguments.threads)


def open_all(folder: Path, threads: int) -> dict[str, Predict]:
    """Opens the network in `folder` in each runtime: name -> network."""
    modes = {"ONNX Runtime FP32": "onnx", REFERENCE: "fp32", "OpenVINO INT8": "int8"}
    eager, _ = open_variant("torch", folder / "torch", threads)
    compiled = torch.compile(load_served(folder / "torch").network)

    def predict_compiled(pixels: np.ndarray) -> tuple:
        with torch.inference_mode():
            return compiled(torch.from_numpy(pixels))

    return {"torch, eager": eager, "torch.compile": predict_compiled} | {
        name: open_variant(mode, folder / mode, threads)[0] for name, mode in modes.items()
    }


def measure(
    predicts: dict[str, Callable], size_px: int, repetitions: int, seconds: float
) -> dict[tuple[str, int], list[float]]:
    """Returns (name, batch size) -> images/s of each turn; a first call of each is not counted."""
    speeds: dict[tuple[str, int], list[float]] = {}
    rng = np.random.default_rng(0)
    batches = {size: rng.integers(0, 256, (size, size_px, size_px), dtype=np.uint8) for size in BATCHES}
    for size, pixels in batches.items():
        for predict in track(predicts.values(), f"first calls, batch {size}", len(predicts), "call"):
            predict(pixels)
    for _ in track(range(repetitions), "turns", repetitions, "turn"):
        for size, pixels in batches.items():
            for name, predict in predicts.items():
                started, images = time.perf_counter(), 0
                while (spent := time.perf_counter() - started) < seconds:
                    predict(pixels)
                    images += size
                speeds.setdefault((name, size), []).append(images / spent)
    return speeds


def show(speeds: dict[tuple[str, int], list[float]], title: str, threads: int) -> None:
    machine = describe_machine()
    shown = f"{title}; {machine['cpu']}, {', '.join(machine['int8_instructions'])}; {threads} thread(s)"
    table = Table("runtime", title=shown, title_justify="left")
    for column in ("batch", "images/s", "to FP32", "smallest", "largest"):
        table.add_column(column, justify="right")
    for size in BATCHES:
        for name in dict.fromkeys(name for name, _ in speeds):
            own = speeds[name, size]
            ratios = [one / other for one, other in zip(own, speeds[REFERENCE, size], strict=True)]
            ends = (statistics.median(ratios), min(ratios), max(ratios))
            table.add_row(name, str(size), f"{statistics.median(own):,.1f}", *(f"{ratio:.2f}" for ratio in ends))
        table.add_section()
    table.caption = f"medians of {len(next(iter(speeds.values())))} turns"
    Console().print(table)


if __name__ == "__main__":
    run_command(main)
