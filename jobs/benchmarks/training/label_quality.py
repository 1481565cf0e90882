"""How long does it take to judge all labels of a large table, and how much memory?

    python -m jobs.benchmarks.training.label_quality                       100,000 images, 14 findings, 1,000 resamples
    python -m jobs.benchmarks.training.label_quality --images 25000

Labels are as frequent as in ChestX-ray14; one in fifty is wrong. Probabilities are drawn as of a model whose AUROC is
about 0.85. Pictures of the suspects are not part of it: their time is the model's own.
"""

import argparse
import os
import resource
import time

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.special import expit

from conf.errors import run_command
from conf.settings import LabelQuality
from etl.contract.schema import NIH_FINDINGS
from jobs.benchmarks.training.bootstrap import NUM_IMAGES, POSITIVES
from training.suspects.find import NUM_RESAMPLES, find_suspects
from training.suspects.predicted import Predicted

IMAGES_PER_PATIENT = 3.6
"""as in ChestX-ray14: 112,120 images of 30,805 patients"""
WRONG = 0.02
SEPARATION = 1.5
"""log-odds between images with and without a finding, in standard deviations"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="number of images (default 100,000)")
    predicted = drawn(parser.parse_args().images)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.monotonic()
    found = find_suspects(predicted, LabelQuality(), seed=0)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = Table(
        "images", "patients", "findings", "resamples", "suspects", "cores", "seconds", "peak memory", "before"
    )
    table.add_row(
        *(f"{number:,}" for number in (len(predicted.rows), predicted.rows.patient_id.nunique(), len(found.findings))),
        *(f"{number:,}" for number in (NUM_RESAMPLES, len(found.suspects), len(os.sched_getaffinity(0)))),
        *(f"{seconds:.1f}", f"{peak:,.0f} MB", f"{before_mb:,.0f} MB"),
    )
    Console(width=120).print(table)


def drawn(images: int) -> Predicted:
    """Labels, some of them wrong, and what a model says."""
    rng, findings = np.random.default_rng(0), list(NIH_FINDINGS)
    frequency = np.array(POSITIVES) / NUM_IMAGES
    truth = rng.random((images, len(findings))) < frequency
    odds = np.log(frequency / (1 - frequency)) + SEPARATION * (truth - frequency)
    probabilities = expit(odds + rng.normal(size=truth.shape))
    labels = (truth ^ (rng.random(truth.shape) < WRONG)).astype(np.float32)
    patients = rng.integers(round(images / IMAGES_PER_PATIENT), size=images).astype(str)
    rows = pd.DataFrame({"image_id": [f"{i}.png" for i in range(images)], "patient_id": patients, "split": "test"})
    return Predicted(rows, findings, labels, probabilities, np.zeros(images, int), [])


if __name__ == "__main__":
    run_command(main)
