"""How long does an external test measure, and how much memory does it take, beside the model's own time?

    python -m jobs.benchmarks.inference.external                       25,596 films, 14 findings, 1,000 resamples
    python -m jobs.benchmarks.inference.external --images 5000

It measures drawn labels and probabilities in the numbers of ChestX-ray14's test split, with all groups and intervals,
and compares them with an own test split of the same size.
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from etl.contract.schema import NIH_FINDINGS
from inference.candidate.measuring.evaluate import NUM_RESAMPLES, Scored
from inference.external.measure import measure
from inference.model.own_test import OwnTest
from inference.model.properties import Properties
from jobs.benchmarks.training.bootstrap import NUM_IMAGES, NUM_PATIENTS, POSITIVES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="number of films of 2,797 patients")
    images = parser.parse_args().images
    rng = np.random.default_rng(0)
    scored, own = drawn(rng, images), drawn(rng, images)
    thresholds = {"youden": [0.5] * len(NIH_FINDINGS), "sensitivity_0.9": [0.3] * len(NIH_FINDINGS)}
    shape = dict.fromkeys(Properties.__dataclass_fields__, None)
    properties = Properties(
        **shape | {"findings": list(NIH_FINDINGS), "thresholds": thresholds, "distance_threshold": 1}
    )
    started = time.monotonic()
    measure(properties, scored, "int8", OwnTest(own.labels, own.probabilities["int8"], own.patients), seed=0)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = Table("films", "findings", "resamples", "seconds", "peak memory")
    table.add_row(f"{images:,}", f"{len(NIH_FINDINGS)}", f"{NUM_RESAMPLES:,}", f"{seconds:.1f}", f"{peak:,.0f} MB")
    Console().print(table)


def drawn(rng: np.random.Generator, images: int) -> Scored:
    """Labels and answers without any relation to a film."""
    shape = (images, len(NIH_FINDINGS))
    labels = (rng.random(shape) < np.array(POSITIVES) / NUM_IMAGES).astype(np.float32)
    probabilities = rng.random(shape).astype(np.float32) * (1 + labels) / 2
    people = pd.DataFrame(
        {
            "patient_id": rng.integers(NUM_PATIENTS, size=images).astype(str),
            "age_years": rng.integers(1, 95, images).astype(np.float32),
            "sex": rng.choice(["F", "M"], images),
            "view": rng.choice(["PA", "AP"], images),
        }
    )
    return Scored(labels, people, {"int8": probabilities}, {"int8": np.zeros(images, np.float32)}, {"int8": []})


if __name__ == "__main__":
    main()
