"""Checks and measures the training step on one GPU, in a few minutes.

    python -m jobs.benchmarks.gpu --output gpu.json        on one GPU, in at most 8 minutes
    python -m jobs.benchmarks.gpu --tiny                   on the CPU in a tiny setting, to try the command itself

The steps are those of training: augmentation, model, loss, backward pass, AdamW. Compared are: the gradients with those
of the CPU; the losses of one rank under each launcher with those of a single process; and from a base (DenseNet-121 and
ResNet-50, 224 px, bf16, channels-last, batches of 128 in memory) one change at a time: precision, layout, side, batch,
source of the batches, torch.compile. It needs torch, torchvision, numpy, pyarrow and pandas. What needs more, or does
not fit into the time or the memory, is named and left out. The tables are Markdown. The exit code is 1 if something
failed or differs by more than it should.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.cuda import is_available

from conf.errors import InputError, run_command
from conf.writing import write_json
from jobs.benchmarks.gpu.clock import Clock
from jobs.benchmarks.gpu.parts import FAILED, check_gradients, check_launchers, measure_cells, show_peaks
from jobs.benchmarks.gpu.plan import GPU, TINY
from jobs.benchmarks.gpu.report import describe_machine
from training.ranks.memory import keep_freed_memory


def main() -> None:
    arguments = parse_arguments()
    scale = TINY if arguments.tiny or not is_available() else GPU
    if scale is TINY:
        reason = "--tiny" if arguments.tiny else "no GPU"
        print(f"{reason}: measured on the CPU in a tiny setting, which says nothing about speed", flush=True)
    results = {"machine": describe_machine(scale.device), "peaks": [], "gradients": [], "launchers": [], "cells": []}
    print(", ".join(f"{name} {value}" for name, value in results["machine"].items()), flush=True)
    keep_freed_memory()
    # The tiny setting's steps are too short to be shared among threads.
    if scale is TINY:
        torch.set_num_threads(1)
    started, clock = time.monotonic(), Clock(arguments.minutes)
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        for part in (show_peaks, check_gradients, check_launchers, measure_cells):
            part(scale, Path(folder), results, clock)
            if arguments.output:
                write_json(arguments.output, results)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    rows = [row for rows in results.values() if isinstance(rows, list) for row in rows]
    if any(row.get("outcome", "").startswith(FAILED) or row.get("as_expected") is False for row in rows):
        print("something failed, or differs by more than it should: see the tables", file=sys.stderr)
        sys.exit(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="what does not fit into this time is left out (8)")
    parser.add_argument("--output", type=Path, help="JSON file for all results")
    parser.add_argument("--tiny", action="store_true", help="on the CPU in a tiny setting")
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        raise InputError(f"--minutes is {arguments.minutes}, expected a number above 0")
    if arguments.output and not arguments.output.absolute().parent.is_dir():
        raise InputError(f"--output is {arguments.output}, but {arguments.output.absolute().parent} is no folder")
    return arguments


if __name__ == "__main__":
    run_command(main)
