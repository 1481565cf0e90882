"""Measures how fast an ensemble of equal networks answers in one INT8 graph, compared with one of them.

    python -m jobs.benchmarks.inference.members --model densenet121 --size_px 224 --members 3

Weights are random. The graphs take turns, so that what slows the machine slows both. Prints images/s, and the
ensemble's ratio to the single network.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from conf.errors import run_command
from conf.words import counted
from inference.candidate.measuring.speed import describe_machine
from inference.model.variants import open_variant
from jobs.benchmarks.inference.fresh import export_fresh
from jobs.benchmarks.inference.precisions import BATCHES, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="densenet121", help="network, as in training.model (default densenet121)")
    parser.add_argument("--size_px", type=int, default=224, help="side of the images (default 224)")
    parser.add_argument("--members", type=int, default=3, help="networks in the ensemble (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each graph (default 1)")
    parser.add_argument("--repetitions", type=int, default=9, help="number of turns (default 9)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of each turn, at least (default 1)")
    arguments = parser.parse_args()
    predicts = {}
    with tempfile.TemporaryDirectory() as temporary:
        for members in (1, arguments.members):
            folder = Path(temporary, str(members))
            export_fresh(arguments.model, arguments.size_px, folder, members)
            predicts[members] = open_variant("int8", folder / "int8", arguments.threads)[0]
        speeds = measure(predicts, arguments.size_px, arguments.repetitions, arguments.seconds)
    machine = describe_machine()
    print(f"{arguments.model}, {arguments.size_px} px, INT8, {counted(arguments.threads, 'thread')}; {machine['cpu']}")
    for size in BATCHES:
        alone, joined = speeds[1, size], speeds[arguments.members, size]
        ratios = [one / other for one, other in zip(joined, alone, strict=True)]
        print(
            f"batch of {size}: one {statistics.median(alone):,.1f} images/s, {arguments.members} in one graph "
            f"{statistics.median(joined):,.1f}; ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
            f"{max(ratios):.3f}), 1/{arguments.members} is {1 / arguments.members:.3f}"
        )


if __name__ == "__main__":
    run_command(main)
