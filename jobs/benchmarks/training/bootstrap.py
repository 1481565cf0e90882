"""Measures the time and memory of bootstrapping intervals of AUROC and average precision for NIH's test split.

    python -m jobs.benchmarks.training.bootstrap        25,596 images of 2,797 patients, 14 findings, 1,000 resamples

Labels and scores are random; findings are as frequent as NIH's. Prints seconds and megabytes as JSON.
"""

import argparse
import json
import os
import resource
import time

import numpy as np

from conf.errors import run_command
from training.measures.intervals import bootstrap_areas

NUM_IMAGES, NUM_PATIENTS = 25_596, 2_797
# Number of images with each finding in NIH's test split, in the contract's order.
POSITIVES = (3279, 1069, 4658, 6112, 1748, 1623, 555, 2665, 1815, 925, 1093, 435, 1143, 86)
NUM_RESAMPLES = 1_000


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rng = np.random.default_rng(0)
    shape = (NUM_IMAGES, len(POSITIVES))
    labels = (rng.random(shape) < np.array(POSITIVES) / NUM_IMAGES).astype(np.float32)
    scores = rng.normal(size=shape).astype(np.float32) + labels
    patients = rng.integers(NUM_PATIENTS, size=NUM_IMAGES)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    bootstrap_areas(labels, scores, patients, num_resamples=NUM_RESAMPLES, seed=0)
    seconds = time.perf_counter() - started
    result = {"images": NUM_IMAGES, "patients": NUM_PATIENTS, "findings": len(POSITIVES), "resamples": NUM_RESAMPLES}
    measured = {
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(seconds, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_mb_before": round(before_mb),
    }
    print(json.dumps({**result, **measured}, indent=2))


if __name__ == "__main__":
    run_command(main)
