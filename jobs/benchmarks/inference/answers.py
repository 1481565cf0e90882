"""Asks a model for its reference films on the CPU that runs this, for elsewhere.py.

Imports no torch, which takes minutes on an emulated CPU.

    python -m jobs.benchmarks.inference.answers DIR          DIR has int8/ and fp32/, each with its reference films
"""

import argparse
from pathlib import Path

import numpy as np

from conf.errors import run_command
from inference.model.reference import difference_here, read_reference
from inference.model.variants import open_variant

MODES = ("int8", "fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with int8/ and fp32/")
    folder = parser.parse_args().folder
    for mode in MODES:
        predict, properties = open_variant(mode, folder / mode, 1)
        reference = read_reference(folder / mode)
        differences = np.abs(predict(*reference.inputs).probabilities - reference.expected[mode])
        said = difference_here(folder / mode, mode, predict, properties.findings, "--mode")
        print(f"  {mode}: {differences.max():.4f}; {said or 'the check says nothing'}", flush=True)


if __name__ == "__main__":
    run_command(main)
